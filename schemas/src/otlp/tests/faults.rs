//! What is refused, and that nothing makes the decoder panic.

use opentelemetry_proto::tonic::trace::v1::Span;

use super::forms::{logs_message, metrics_message, traces_message};
use super::*;

#[track_caller]
fn check(signal: Signal, payload: impl AsRef<[u8]>, reason: &str) {
    let mut decoder = decoder();
    let error = decoder.absorb(signal, payload.as_ref(), META).unwrap_err();
    assert_eq!(error.reason(), reason, "{error}");
    assert_eq!(decoder.take().len(), 0, "a refused record left rows");
}

fn with_span(change: impl Fn(&mut Span)) -> Vec<u8> {
    let mut data = traces_message();
    change(&mut data.resource_spans[0].scope_spans[0].spans[0]);
    data.encode_to_vec()
}

#[test]
fn empty_records_are_refused() {
    for signal in Signal::ALL {
        for payload in ["", " \n", "null"] {
            check(signal, payload, "empty");
        }
    }
    check(Signal::Traces, r#"{"resourceSpans": []}"#, "empty");
    check(Signal::Traces, r#"{"resourceSpans": null}"#, "empty");
    check(Signal::Traces, r#"{"resourceSpans": [{"scopeSpans": [{"spans": null}]}]}"#, "empty");
    check(Signal::Traces, [0x0a, 0x00], "empty");
}

#[test]
fn bytes_that_are_no_otlp_are_malformed() {
    check(Signal::Traces, "garbage", "malformed_protobuf");
    check(Signal::Logs, [0xff; 64], "malformed_protobuf");
    let whole = traces_message().encode_to_vec();
    check(Signal::Traces, &whole[..whole.len() - 3], "malformed_protobuf");
    check(Signal::Traces, r#"{"resourceSpans": ["#, "malformed_json");
    check(Signal::Traces, r#"{"traceId": "00"}"#, "malformed_json");
    check(Signal::Traces, format!("{}{}", "{\"resourceSpans\":", "[".repeat(10_000)), "malformed_json");
}

#[test]
fn every_signal_is_refused_on_the_topic_of_another() {
    let messages = [
        (Signal::Traces, traces_message().encode_to_vec()),
        (Signal::Logs, logs_message().encode_to_vec()),
        (Signal::Metrics, metrics_message().encode_to_vec()),
    ];
    for (found, payload) in &messages {
        for expected in Signal::ALL.into_iter().filter(|expected| expected != found) {
            let error = decoder().absorb(expected, payload, META).unwrap_err();
            match error {
                DecodeError::WrongSignal { expected: e, found: f } => assert_eq!((e, f), (expected, *found)),
                other => panic!("{found:?} on {expected:?}: {other}"),
            }
        }
    }
    check(Signal::Logs, r#"{"resourceSpans": []}"#, "wrong_signal");
    check(Signal::Traces, r#"{"resource_metrics": []}"#, "wrong_signal");
}

#[test]
fn gauge_that_reads_as_a_span_is_still_of_the_wrong_signal() {
    // A gauge named with 16 bytes and described with 8 has the identifiers of a span.
    let mut data = metrics_message();
    let metrics = &mut data.resource_metrics[0].scope_metrics[0].metrics;
    metrics.truncate(1);
    check(Signal::Traces, data.encode_to_vec(), "wrong_signal");
    let metrics = &mut data.resource_metrics[0].scope_metrics[0].metrics;
    metrics[0].name = "sixteen.bytes.ab".to_owned();
    metrics[0].description = "8 bytes.".to_owned();
    check(Signal::Traces, data.encode_to_vec(), "wrong_signal");
}

#[test]
fn record_whose_items_are_all_flawed_is_refused() {
    check(Signal::Traces, with_span(|s| s.trace_id = vec![0; 16]), "invalid_id");
    check(Signal::Traces, with_span(|s| s.trace_id = vec![1; 8]), "invalid_id");
    check(Signal::Traces, with_span(|s| s.span_id.clear()), "invalid_id");
    check(Signal::Traces, with_span(|s| s.parent_span_id = vec![1; 3]), "invalid_id");
    check(Signal::Traces, with_span(|s| s.end_time_unix_nano = 0), "no_time");
    check(Signal::Traces, with_span(|s| s.end_time_unix_nano = u64::MAX), "time_out_of_range");
    check(Signal::Traces, with_span(|s| s.start_time_unix_nano = u64::MAX), "time_out_of_range");
    let mut logs = logs_message();
    logs.resource_logs[0].scope_logs[0].log_records[0].observed_time_unix_nano = 0;
    check(Signal::Logs, logs.encode_to_vec(), "no_time");
    logs.resource_logs[0].scope_logs[0].log_records[0].trace_id = vec![1; 15];
    check(Signal::Logs, logs.encode_to_vec(), "invalid_id");
    let mut metrics = metrics_message();
    for metric in &mut metrics.resource_metrics[0].scope_metrics[0].metrics {
        metric.name.clear();
    }
    check(Signal::Metrics, metrics.encode_to_vec(), "no_name");
}

#[test]
fn flawed_items_are_given_back_and_the_others_become_rows() {
    let mut data = traces_message();
    let spans = &mut data.resource_spans[0].scope_spans[0].spans;
    let good = spans[0].clone();
    spans.insert(0, Span { trace_id: vec![0; 16], name: "zero".to_owned(), ..good.clone() });
    spans.push(Span { end_time_unix_nano: 0, name: "timeless".to_owned(), ..good.clone() });
    spans.push(Span { span_id: vec![9], name: "short".to_owned(), ..good });
    let (absorbed, batches) = absorb(Signal::Traces, &data.encode_to_vec());
    assert_eq!(absorbed.rows, 1);
    assert_eq!(batches[&Table::Spans].num_rows(), 1);
    let rejected = absorbed.rejected.unwrap();
    assert_eq!((rejected.items, rejected.reason.as_str()), (3, "no_time: 1, invalid_id: 2"));
    let given_back = TracesData::decode(rejected.payload.as_slice()).unwrap();
    assert_eq!(given_back.resource_spans[0].resource, data.resource_spans[0].resource);
    let names: Vec<_> = given_back.resource_spans[0].scope_spans[0].spans.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["zero", "timeless", "short"]);
}

#[test]
fn flawed_data_points_and_log_records_are_given_back_singly() {
    let mut metrics = metrics_message();
    metrics.resource_metrics[0].scope_metrics[0].metrics[1].name.clear();
    let (absorbed, batches) = absorb(Signal::Metrics, &metrics.encode_to_vec());
    assert_eq!((absorbed.rows, batches[&Table::Metrics].num_rows()), (2, 2));
    assert_eq!(absorbed.rejected.unwrap().reason, "no_name: 1");

    let mut logs = logs_message();
    let records = &mut logs.resource_logs[0].scope_logs[0].log_records;
    records.push(opentelemetry_proto::tonic::logs::v1::LogRecord { span_id: vec![1], ..records[0].clone() });
    let (absorbed, _) = absorb(Signal::Logs, &logs.encode_to_vec());
    assert_eq!((absorbed.rows, absorbed.rejected.unwrap().items), (1, 1));
}

#[test]
fn implausible_times_are_decoded_faithfully() {
    for (ns, text) in [(1, "1970-01-01T00:00:00.000000001"), (4_082_788_800_000_000_000, "2099-05-18T12:00:00")] {
        let payload = with_span(|span| {
            span.start_time_unix_nano = 0;
            span.end_time_unix_nano = ns;
        });
        let (_, batches) = absorb(Signal::Traces, &payload);
        check_row(&batches[&Table::Spans], 0, &[("event_time", text), ("start_time", ""), ("duration_ms", "")]);
    }
}

#[test]
fn first_part_of_123_bytes_is_not_taken_for_json() {
    // Such a message begins with a line feed and an opening brace.
    let mut data = traces_message();
    let span = &mut data.resource_spans[0].scope_spans[0].spans[0];
    span.attributes.clear();
    span.events.clear();
    span.name.clear();
    let missing = 123 - data.resource_spans[0].encoded_len() - 2;
    data.resource_spans[0].scope_spans[0].spans[0].name = "x".repeat(missing);
    let payload = data.encode_to_vec();
    assert_eq!(&payload[..2], b"\n{");
    assert_eq!(absorb(Signal::Traces, &payload).0.rows, 1);
    let json = traces(json!({}), &[super::span(1, 0, json!({}))]).to_string();
    assert_eq!(absorb(Signal::Traces, format!("\n {json}\n").as_bytes()).0.rows, 1);
}

#[test]
fn forged_extremes_do_not_overflow() {
    check_span(
        json!({
            "gen_ai.usage.input_tokens": i64::MAX, "gen_ai.usage.output_tokens": i64::MAX,
            "gen_ai.usage.cache_read_input_tokens": i64::MAX, "gen_ai.system": "openai",
            "gen_ai.usage.cache_creation_input_tokens": i64::MAX, "gen_ai.request.model": "gpt-4o",
            "genops.policy.timestamp": i64::MAX,
            "langfuse.observation.completion_start_time": "1700-01-01T00:00:00Z",
        }),
        &[("input_tokens", "9223372036854775807"), ("total_tokens", "9223372036854775807")],
    );
    check_span(
        json!({"input_tokens": i64::MIN, "cache_read_tokens": i64::MIN, "cache_creation_tokens": i64::MIN,
            "model": "o3"}),
        &[("input_tokens", "-9223372036854775808")],
    );
}

#[test]
fn span_of_five_megabytes_is_decoded() {
    let prompt = "x".repeat(5_000_000);
    check_span(json!({"gen_ai.prompt": prompt, "genops.team": "cx"}), &[("team", "cx")]);
}

/// Flips, cuts, repeats and inserts bytes.
fn mutate(random: &mut fastrand::Rng, payload: &[u8]) -> Vec<u8> {
    let mut bytes = payload.to_vec();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..bytes.len().max(1));
        match random.u8(..5) {
            0 if !bytes.is_empty() => bytes[at] = random.u8(..),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << random.u8(..8),
            2 => bytes.truncate(at),
            3 => bytes.insert(at.min(bytes.len()), random.u8(..)),
            _ => {
                let end = (at + random.usize(..32)).min(bytes.len());
                let piece = bytes[at.min(end)..end].to_vec();
                bytes.extend(piece);
            }
        }
    }
    bytes
}

#[test]
fn mutated_records_never_panic_and_leave_whole_rows() {
    let seed = 0x5eed;
    let mut random = fastrand::Rng::with_seed(seed);
    let json = |record: Json| record.to_string().into_bytes();
    let usage = json!({"genops.team": "cx", "gen_ai.usage.input_tokens": "7", "langfuse.observation.level": "ERROR"});
    let payloads = [
        (Signal::Traces, traces_message().encode_to_vec()),
        (Signal::Logs, logs_message().encode_to_vec()),
        (Signal::Metrics, metrics_message().encode_to_vec()),
        (Signal::Traces, json(traces(json!({"service.name": "bot"}), &[span(1, 0, usage)]))),
    ];
    let mut decoder = decoder();
    let mut accepted = 0;
    for round in 0..6000 {
        let (signal, payload) = &payloads[round % payloads.len()];
        let bytes = mutate(&mut random, payload);
        let signal = if random.u8(..8) == 0 { Signal::ALL[random.usize(..3)] } else { *signal };
        if let Ok(absorbed) = decoder.absorb(signal, &bytes, META) {
            assert!(absorbed.rows > 0, "round {round} of seed {seed} accepted a record without rows");
            accepted += absorbed.rows;
        }
    }
    let batches = decoder.take();
    let rows: usize = batches.iter().filter(|(t, _)| *t != Table::SpanEvents).map(|(_, b)| b.num_rows()).sum();
    assert_eq!(rows, accepted);
    assert!(accepted > 500, "the mutations of seed {seed} are too wild to test anything: {accepted}");
}
