import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Properties;
import java.util.function.Function;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.Suppressed.BufferConfig;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.WindowStore;

/** The three questions in its DSL. Arguments: brokers, input topic, name, state folder, budget in USD, grace in s. */
final class KafkaStreamsPeer {
  /** What a team has spent, and with its latest span. */
  record Spend(double total, double latest) {}

  private static final Serde<String> TEXT = Serdes.String();
  private static final Serde<Double> NUMBER = Serdes.Double();

  private KafkaStreamsPeer() {}

  public static void main(String[] args) {
    String servers = args[0], input = args[1], name = args[2], state = args[3];
    double budgetUsd = Double.parseDouble(args[4]);
    Duration grace = Duration.ofSeconds(Long.parseLong(args[5]));
    StreamsBuilder builder = new StreamsBuilder();
    KStream<String, Otlp.Row> spans =
        builder.stream(input, Consumed.with(TEXT, Serdes.ByteArray())).processValues(Split::new);
    budget(spans, grace, budgetUsd).to(name + ".alerts", Produced.with(TEXT, TEXT));
    spend(spans, grace).to(name + ".spend", Produced.with(TEXT, TEXT));
    latency(spans, grace).to(name + ".latency", Produced.with(TEXT, TEXT));
    KafkaStreams streams = new KafkaStreams(builder.build(), properties(servers, name, Path.of(state)));
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    streams.start();
  }

  private static Properties properties(String servers, String name, Path state) {
    Properties properties = new Properties();
    properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
    properties.put(StreamsConfig.APPLICATION_ID_CONFIG, name);
    properties.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
    properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
    properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    properties.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    // Windows are cached between commits and let go by suppress(): a store that emits on close has no cache, and would
    // write every state of every sketch to its changelog.
    properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64 << 20);
    properties.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    // Static membership: an instance that comes back need not wait until the group has given it up.
    properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG), "only");
    return properties;
  }

  /** One record becomes its spans, each with its own time; the key, the team, stays, so nothing moves. */
  private static final class Split extends ContextualFixedKeyProcessor<String, byte[], Otlp.Row>
      implements FixedKeyProcessor<String, byte[], Otlp.Row> {
    @Override
    public void process(FixedKeyRecord<String, byte[]> message) {
      for (Otlp.Row row : Otlp.rows(message.value())) {
        context().forward(message.withValue(row).withTimestamp(row.endMs()));
      }
    }
  }

  private static KStream<String, String> budget(KStream<String, Otlp.Row> spans, Duration grace, double budgetUsd) {
    return spans
        .mapValues(Otlp.Row::costUsd)
        .groupByKey(Grouped.with(TEXT, NUMBER))
        .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofDays(1), grace))
        .aggregate(
            () -> new Spend(0, 0),
            (team, costUsd, spend) -> new Spend(spend.total() + costUsd, costUsd),
            Materialized.<String, Spend, WindowStore<Bytes, byte[]>>with(TEXT, SPEND).withCachingDisabled())
        .toStream()
        .filter((team, spend) -> spend.total() >= budgetUsd && spend.total() - spend.latest() < budgetUsd)
        .map((team, spend) -> pair(team, spend.total()));
  }

  private static KStream<String, String> spend(KStream<String, Otlp.Row> spans, Duration grace) {
    return spans
        .map((team, row) -> new KeyValue<>(team + "|" + row.model(), row.costUsd()))
        .groupByKey(Grouped.with(TEXT, NUMBER))
        .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMinutes(1), grace))
        .aggregate(() -> 0.0, (key, costUsd, total) -> total + costUsd, Materialized.with(TEXT, NUMBER))
        .suppress(Suppressed.untilWindowCloses(BufferConfig.unbounded()))
        .toStream()
        .map((key, total) -> pair(key, total));
  }

  private static KStream<String, String> latency(KStream<String, Otlp.Row> spans, Duration grace) {
    return spans
        .map((team, row) -> new KeyValue<>(row.model(), row.latencyMs()))
        .groupByKey(Grouped.with(TEXT, NUMBER))
        .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMinutes(5), grace).advanceBy(Duration.ofMinutes(1)))
        .aggregate(Sketch::new, (model, ms, sketch) -> sketch.add(ms), Materialized.with(TEXT, SKETCH))
        .suppress(Suppressed.untilWindowCloses(BufferConfig.unbounded()))
        .toStream()
        .map((model, sketch) -> pair(model, sketch.quantile(0.95)));
  }

  private static KeyValue<String, String> pair(Windowed<String> key, double value) {
    String json = "{\"key\":\"" + key.key() + "\",\"start\":" + key.window().start() + ",\"value\":" + value + "}";
    return new KeyValue<>(key.key(), json);
  }

  private static final Serde<Spend> SPEND = serde(
      spend -> ByteBuffer.allocate(16).putDouble(spend.total()).putDouble(spend.latest()).array(),
      bytes -> new Spend(ByteBuffer.wrap(bytes).getDouble(0), ByteBuffer.wrap(bytes).getDouble(8)));

  private static final Serde<Sketch> SKETCH = serde(Sketch::toBytes, Sketch::fromBytes);

  private static <T> Serde<T> serde(Function<T, byte[]> to,
      Function<byte[], T> from) {
    Serializer<T> serializer = (topic, value) -> value == null ? null : to.apply(value);
    Deserializer<T> deserializer = (topic, bytes) -> bytes == null ? null : from.apply(bytes);
    return Serdes.serdeFrom(serializer, deserializer);
  }
}
