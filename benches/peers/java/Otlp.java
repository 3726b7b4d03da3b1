import com.google.protobuf.InvalidProtocolBufferException;
import io.opentelemetry.proto.common.v1.KeyValue;
import io.opentelemetry.proto.trace.v1.ResourceSpans;
import io.opentelemetry.proto.trace.v1.ScopeSpans;
import io.opentelemetry.proto.trace.v1.Span;
import io.opentelemetry.proto.trace.v1.TracesData;
import java.util.ArrayList;
import java.util.List;

/** The columns that the three questions need, out of OTLP protobuf by its official Java classes. */
final class Otlp {
  record Row(String team, String model, long endMs, double costUsd, double latencyMs) {}

  private Otlp() {}

  static List<Row> rows(byte[] payload) {
    try {
      List<Row> rows = new ArrayList<>();
      for (ResourceSpans resource : TracesData.parseFrom(payload).getResourceSpansList()) {
        for (ScopeSpans scope : resource.getScopeSpansList()) {
          for (Span span : scope.getSpansList()) {
            rows.add(row(span));
          }
        }
      }
      return rows;
    } catch (InvalidProtocolBufferException e) {
      throw new IllegalArgumentException("a record is no OTLP", e);
    }
  }

  private static Row row(Span span) {
    String team = "";
    String model = "";
    double costUsd = 0;
    for (KeyValue attribute : span.getAttributesList()) {
      switch (attribute.getKey()) {
        case "genops.team" -> team = attribute.getValue().getStringValue();
        case "gen_ai.request.model" -> model = attribute.getValue().getStringValue();
        case "genops.cost.total" -> costUsd = attribute.getValue().getDoubleValue();
        default -> { }
      }
    }
    long end = span.getEndTimeUnixNano();
    return new Row(team, model, end / 1_000_000, costUsd, (end - span.getStartTimeUnixNano()) / 1e6);
  }
}
