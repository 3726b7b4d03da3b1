import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.Schema;
import org.apache.flink.table.api.bridge.java.StreamStatementSet;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/**
 * The three questions in Flink SQL over a table `spans` that is read from OTLP by a decoder of our own: Flink has no
 * format for it. Arguments: brokers, input topic, SQL file, configuration (key=value …).
 */
final class FlinkPeer {
  private FlinkPeer() {}

  public static void main(String[] args) throws IOException {
    Configuration configuration = new Configuration();
    for (int i = 3; i < args.length; i++) {
      String[] pair = args[i].split("=", 2);
      configuration.setString(pair[0], pair[1]);
    }
    StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment(configuration);
    env.getConfig().enableObjectReuse();
    StreamTableEnvironment tables = StreamTableEnvironment.create(env);
    tables.createTemporaryView("spans", spans(env, args[0], args[1]), schema());
    StreamStatementSet inserts = tables.createStatementSet();
    for (String statement : Files.readString(Path.of(args[2])).replaceAll("(?m)^--.*$", "").split(";")) {
      if (statement.strip().startsWith("INSERT")) {
        inserts.addInsertSql(statement);
      } else if (!statement.isBlank()) {
        tables.executeSql(statement);
      }
    }
    inserts.execute();
  }

  private static Schema schema() {
    return Schema.newBuilder()
        .column("team", "STRING").column("model", "STRING").column("end_ms", "BIGINT")
        .column("cost", "DOUBLE").column("latency_ms", "DOUBLE")
        .columnByMetadata("rowtime", "TIMESTAMP_LTZ(3)")
        .columnByExpression("proctime", "PROCTIME()")
        .watermark("rowtime", "SOURCE_WATERMARK()")
        .build();
  }

  private static DataStream<Row> spans(StreamExecutionEnvironment env, String servers, String topic) {
    KafkaSource<Row> source = KafkaSource.<Row>builder()
        .setBootstrapServers(servers).setTopics(topic).setGroupId("flink-peer")
        .setStartingOffsets(OffsetsInitializer.earliest())
        .setDeserializer(new Decoder())
        .build();
    WatermarkStrategy<Row> watermarks = WatermarkStrategy
        .<Row>forBoundedOutOfOrderness(Duration.ofSeconds(10))
        .withTimestampAssigner((row, timestamp) -> (Long) row.getField(2))
        .withIdleness(Duration.ofSeconds(30));
    return env.fromSource(source, watermarks, "spans").returns(Decoder.TYPE).uid("spans");
  }

  private static final class Decoder implements KafkaRecordDeserializationSchema<Row> {
    static final TypeInformation<Row> TYPE = Types.ROW_NAMED(
        new String[] {"team", "model", "end_ms", "cost", "latency_ms"},
        Types.STRING, Types.STRING, Types.LONG, Types.DOUBLE, Types.DOUBLE);

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> message, Collector<Row> out) {
      for (Otlp.Row row : Otlp.rows(message.value())) {
        out.collect(Row.of(row.team(), row.model(), row.endMs(), row.costUsd(), row.latencyMs()));
      }
    }

    @Override
    public TypeInformation<Row> getProducedType() {
      return TYPE;
    }
  }
}
