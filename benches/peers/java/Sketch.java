import java.nio.ByteBuffer;

/** A histogram with logarithmic buckets: quantiles within 1 % of a value there is. */
final class Sketch {
  private static final double LOG_GAMMA = Math.log(1.01 / 0.99);
  /** Up to e^14 ms, a quarter of an hour. */
  private static final int BUCKETS = (int) (14 / LOG_GAMMA);

  private final int[] counts = new int[BUCKETS];
  private int first = BUCKETS;
  private int last = -1;

  Sketch add(double ms) {
    int bucket = Math.min(BUCKETS - 1, Math.max(0, (int) Math.ceil(Math.log(ms) / LOG_GAMMA)));
    counts[bucket]++;
    first = Math.min(first, bucket);
    last = Math.max(last, bucket);
    return this;
  }

  double quantile(double q) {
    long total = 0;
    for (int bucket = first; bucket <= last; bucket++) {
      total += counts[bucket];
    }
    long rank = (long) (q * (total - 1));
    int bucket = first;
    for (long seen = counts[bucket]; seen <= rank; seen += counts[bucket]) {
      bucket++;
    }
    return 2 * Math.exp(bucket * LOG_GAMMA) / (Math.exp(LOG_GAMMA) + 1);
  }

  byte[] toBytes() {
    ByteBuffer bytes = ByteBuffer.allocate(2 + 4 * Math.max(0, last - first + 1)).putShort((short) first);
    for (int bucket = first; bucket <= last; bucket++) {
      bytes.putInt(counts[bucket]);
    }
    return bytes.array();
  }

  static Sketch fromBytes(byte[] array) {
    ByteBuffer bytes = ByteBuffer.wrap(array);
    Sketch sketch = new Sketch();
    int bucket = bytes.getShort();
    sketch.first = bucket;
    for (; bytes.hasRemaining(); bucket++) {
      sketch.counts[bucket] = bytes.getInt();
    }
    sketch.last = bucket - 1;
    return sketch;
  }
}
