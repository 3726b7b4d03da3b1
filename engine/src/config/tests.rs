use lictor_schemas::rule::Mode;
use lictor_schemas::time::NANOS_PER_MS;

use super::*;
use crate::guard::OnStale;
use crate::http::call::Endpoint;

const MINIMAL: &str = "kafka: {bootstrap.servers: \"localhost:9092\"}\nrules: rules\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    let env = |name: &str| match name {
        "KAFKA_PASSWORD" => Some("hunter2".to_owned()),
        "API_KEY" => Some("hunter3".to_owned()),
        "LATENESS" => Some("a-long-time".to_owned()),
        "CONSOLE_TOKEN" => Some("correct-horse-battery".to_owned()),
        _ => None,
    };
    let file = |path: &Path| match path.to_str() {
        Some("/run/user") => Ok("svc-lictor\n".to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    Config::from_yaml(Path::new("etc/lictor.yaml"), text, &Outside { env: &env, file: &file })
}

#[track_caller]
fn check(text: &str, faults: &[&str]) {
    let message = parse(text).unwrap_err().to_string();
    let found: Vec<&str> = message.lines().map(|line| line.strip_prefix("etc/lictor.yaml:").unwrap()).collect();
    assert_eq!(found, faults);
}

/// A fault of one key, added to a configuration that is right.
#[track_caller]
fn check_key(text: &str, fault: &str) {
    check(&format!("{MINIMAL}{text}"), &[fault]);
}

#[test]
fn brokers_and_rules_are_enough() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.application_id, "lictor");
    assert_eq!(config.kafka.bootstrap_servers(), "localhost:9092");
    assert_eq!(config.topics, Topics::default());
    assert_eq!((config.rules.as_path(), config.prices), (Path::new("etc/rules"), None));
    assert_eq!(config.time, Tolerances::default());
    assert_eq!((config.epoch, config.limits), (EpochBounds::default(), Limits::default()));
    assert_eq!(config.guard, GuardOptions::default());
    assert_eq!((config.http, config.log), (Some("127.0.0.1:8080".parse().unwrap()), LogFormat::Text));
}

/// Every key there is, none with its default.
const EVERY_KEY: &str = "
application_id: lictor-eu.1
kafka:
  bootstrap.servers: b1:9092
  linger.ms: 5
  enable.ssl.certificate.verification: true
topics:
  traces: [spans_a, spans_b]
  logs: []
  metrics: []
  enforcement: e
  directives: d
  directives_shadow: s
  dead_letter: x
  late: l
  otlp: o
  otlp_encoding: otlp_json
rules: /etc/rules
prices: prices.csv
columns:
  - {column: team, attribute: acme.cost_center}
time: {lateness: 0s, idle_after: 1m, max_future_skew: 1h}
epoch: {linger: 100ms, rows_max: 1_000}
limits: {groups_max: 5, subjects_max: 6, history: 2h, decode_error_ratio_max: 1}
guard: {http: 0.0.0.0:9, on_stale: deny, stale_after: 1m, headers: {X-Team: team}, directives_max: 7,
  decisions: otlp_spans}
alertmanager: {urls: ['http://am-0:9093/', 'http://[::1]:80/am'], username: u, password: secret-pass, resend: 2m}
mode: shadow
http: off
console: {listen: 0.0.0.0:81, token: '${env:CONSOLE_TOKEN}', allow_reload: true}
log: {format: json}
";

#[test]
fn every_key_is_read() {
    let config = parse(EVERY_KEY).unwrap();
    assert_eq!(config.rules, Path::new("/etc/rules"));
    assert_eq!(config.prices.as_deref(), Some(Path::new("etc/prices.csv")));
    assert_eq!(config.epoch, EpochBounds { linger: Duration::from_millis(100), rows_max: 1_000 });
    let history_ns = 2 * 3_600 * 1_000_000_000;
    let limits = Limits { groups_max: 5, subjects_max: 6, history_ns, decode_error_ratio_max: 1.0 };
    assert_eq!(config.limits, limits);
    assert_eq!((config.http, config.log), (None, LogFormat::Json));
    let ConsoleSettings { listen, token, allow_reload } = &config.console;
    assert_eq!((*listen, *allow_reload), (ConsoleListen::At("0.0.0.0:81".parse().unwrap()), true));
    assert_eq!(token.as_deref(), Some("correct-horse-battery"));
    let GuardOptions { http, on_stale, stale_after, headers, directives_max, decisions } = &config.guard;
    assert_eq!(decisions.as_deref(), Some("otlp_spans"));
    assert_eq!((http.to_string().as_str(), *on_stale), ("0.0.0.0:9", OnStale::Deny));
    assert_eq!((*stale_after, *directives_max), (Duration::from_secs(60), 7));
    assert_eq!(*headers, BTreeMap::from([("x-team".to_owned(), "team".to_owned())]));
    let alertmanager = config.alertmanager.as_ref().unwrap();
    let urls: Vec<String> = alertmanager.endpoints.iter().map(Endpoint::to_url).collect();
    assert_eq!(urls, ["http://am-0:9093", "http://[::1]:80/am"]);
    assert_eq!((alertmanager.resend, &alertmanager.generator_url), (Duration::from_secs(120), &None));
    let settings = config.pipeline_settings();
    assert_eq!(settings.application_id, "lictor-eu.1");
    assert_eq!(
        settings.signals.into_iter().collect::<Vec<_>>(),
        [("spans_a".to_owned(), Signal::Traces), ("spans_b".to_owned(), Signal::Traces)]
    );
    let minute = 60_000 * NANOS_PER_MS;
    let time = Tolerances { lateness_ns: 0, idle_after_ns: minute, future_skew_ns: 60 * minute };
    assert_eq!(settings.tolerances, time);
    assert_eq!(settings.columns, [ExtraSource { column: "team".into(), attribute: "acme.cost_center".into() }]);
    assert_eq!((settings.groups_max, settings.subjects_max, settings.mode), (5, 6, Mode::Shadow));
    let options = config.task_options(vec!["spans_a".to_owned()]);
    assert_eq!((options.application_id.as_str(), options.reading.rows_max), ("lictor-eu.1", 1_000));
    assert_eq!((&options.topics.outputs, options.reading.decode_error_ratio_max), (&config.topics.outputs, 1.0));
    assert_eq!(
        (options.topics.shuffle.as_str(), options.topics.state.as_str()),
        ("lictor-eu.1.shuffle", "lictor-eu.1.state")
    );
    let outputs = config.topics.output_specs();
    assert_eq!(
        outputs.iter().map(|t| (t.name.as_str(), t.compacted)).collect::<Vec<_>>(),
        [("e", false), ("d", true), ("s", true), ("x", false), ("l", false), ("o", false)]
    );
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let text = "application_id: Lictor\nkafka:\n  bootstrap.servers: b:9092\n  group.id: mine\n  acks: 1\n\
                time: {lateness: soon}\nlimits: {groups_max: 0}\nhttp: localhost\n";
    check(
        text,
        &[
            "1:1: rules: is missing: write the path of the rules directory",
            "1:17: application_id: `Lictor` names consumer groups and event sources: use a-z, 0-9, `.`, `_` and `-`",
            "4:13: kafka property `group.id` is derived from `application_id`; set that",
            "5:9: kafka property `acks` = 1 would lose events with the partition's leader; remove it, acks=all is set",
            "6:18: time.lateness: `soon` is not a duration: write a whole number and ms, s, m, h or d, such as 10s",
            "7:22: limits.groups_max: `0` is not a whole number of at least 1",
            "8:7: http: `localhost` is not an IP address and port such as 127.0.0.1:8080, nor `off`",
        ],
    );
}

#[test]
fn keys_that_do_not_exist_are_refused_with_their_place() {
    let message = parse("kafka: {}\nruls: rules\n").unwrap_err().to_string();
    assert!(message.starts_with("etc/lictor.yaml:2:1: unknown field `ruls`, expected one of "), "{message}");
    assert!(message.contains("rules"), "{message}");
    let message = parse(&format!("{MINIMAL}epoch: {{rows: 1}}\n")).unwrap_err().to_string();
    assert!(message.starts_with("etc/lictor.yaml:3:9: unknown field `rows`"), "{message}");
}

#[test]
fn text_that_is_no_yaml_is_refused_without_quoting_it() {
    let message = parse("kafka: {sasl.password: hunter2\nrules: [\n").unwrap_err().to_string();
    assert!(message.starts_with("etc/lictor.yaml:"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn an_output_that_is_also_an_input_is_refused() {
    check_key(
        "topics: {enforcement: otlp_logs}\n",
        "3:23: topics.enforcement: topic `otlp_logs` is also topics.logs: lictor would read what it writes, for ever",
    );
    check_key(
        "topics: {otlp: otlp_logs}\n",
        "3:16: topics.otlp: topic `otlp_logs` is also topics.logs: lictor would read what it writes, for ever",
    );
    check_key(
        "topics: {traces: [lictor.late]}\n",
        "3:19: topics.late: topic `lictor.late` is also topics.traces: lictor would read what it writes, for ever",
    );
}

#[test]
fn a_topic_with_two_purposes_is_refused() {
    check_key(
        "topics: {traces: [otel], logs: [otel]}\n",
        "3:33: topics.logs: topic `otel` is also topics.traces: a topic carries one signal",
    );
    check_key(
        "topics: {late: dl, dead_letter: dl}\n",
        "3:16: topics.late: topic `dl` is also topics.dead_letter: each output has its own form and retention",
    );
    check_key(
        "topics: {traces: [], logs: [], metrics: []}\n",
        "1:1: topics: no topic is read: name one under traces, logs or metrics",
    );
    check_key(
        "topics: {otlp: lictor.directives.shadow}\n",
        "3:16: topics.otlp: topic `lictor.directives.shadow` is also topics.directives_shadow: each output has its own \
         form and retention",
    );
    check_key(
        "topics: {otlp: o, otlp_encoding: proto}\n",
        "3:34: topics.otlp_encoding: `proto` is neither `otlp_proto` nor `otlp_json`",
    );
    check_key(
        "topics: {late: a/b}\n",
        "3:16: topics.late: `a/b` is not a topic name: Kafka takes 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`",
    );
}

#[test]
fn a_column_that_attributes_cannot_feed_is_refused_with_the_nearest() {
    check_key(
        "columns: [{column: teem, attribute: x}]\n",
        "3:20: columns.column: `teem` is not a column that attributes can feed: did you mean `team`?",
    );
    check_key("columns: [{column: team, attribute: ''}]\n", "3:37: columns.attribute: `` is empty");
}

#[test]
fn headers_that_cannot_be_are_refused_all_at_once() {
    let said = "guard:\n  headers:\n    x team: team\n    x-user: ''\n";
    check(
        &format!("{MINIMAL}{said}"),
        &[
            "5:13: guard.headers.x team: `x team` is not the name of an HTTP header",
            "6:13: guard.headers.x-user: `` is empty",
        ],
    );
}

#[test]
fn bounds_are_held() {
    check_key("epoch: {linger: 11s}\n", "3:17: epoch.linger: `11s` is longer than 10s");
    check_key("time: {idle_after: 0s}\n", "3:20: time.idle_after: `0s` must be longer than nothing");
    check_key(
        "limits: {decode_error_ratio_max: 1.5}\n",
        "3:34: limits.decode_error_ratio_max: `1.5` is not a number from 0 to 1",
    );
    check_key("guard: {on_stale: maybe}\n", "3:19: guard.on_stale: `maybe` is neither `allow` nor `deny`");
    check_key("guard: {stale_after: 0s}\n", "3:22: guard.stale_after: `0s` must be longer than nothing");
    check_key(
        "console: {listen: here}\n",
        "3:19: console.listen: `here` is not an IP address and port such as \
               127.0.0.1:8081, nor `http`, nor `off`",
    );
    check_key(
        "console: {allow_reload: perhaps}\n",
        "3:25: console.allow_reload: `perhaps` is neither `true` nor `false`",
    );
    let why = "lictor writes it: name one of spans, such as otlp_spans";
    check_key(
        "guard: {decisions: lictor.directives}\n",
        &format!("3:20: guard.decisions: topic `lictor.directives` {why}"),
    );
    check_key("guard: {http: off}\n", "3:15: guard.http: `off` is not an IP address and port such as 127.0.0.1:8090");
    check_key("mode: Shadow\n", "3:7: mode: `Shadow` is neither `enforce` nor `shadow`");
    check_key("log: {format: xml}\n", "3:15: log.format: `xml` is neither `text` nor `json`");
}

#[test]
fn the_brokers_are_required() {
    check("rules: r\n", &["1:1: kafka: is missing: write at least kafka: {bootstrap.servers: \"host:port\"}"]);
    check(
        "rules: r\nkafka: {linger.ms: 5}\n",
        &["2:20: kafka property `bootstrap.servers` is missing: write the brokers as `host:port,host:port`"],
    );
}

#[test]
fn values_come_from_the_environment_and_from_files() {
    let text = "kafka:\n  bootstrap.servers: b:9092\n  sasl.username: ${file:/run/user}\n  \
                sasl.password: ${env:KAFKA_PASSWORD}\nrules: r\n";
    let config = parse(text).unwrap();
    let expected = KafkaProperties::from_bootstrap("b:9092")
        .with("sasl.username", "svc-lictor")
        .and_then(|properties| properties.with("sasl.password", "hunter2"));
    assert!(config.kafka == expected.unwrap());
    check_key("http: ${env:NOPE}\n", "3:7: http: environment variable `NOPE` is not set");
}

#[test]
fn secrets_are_in_no_message() {
    let text = "kafka:\n  bootstrap.servers: b:9092\n  ssl.key.password: inline-pass\n  \
                client.rack: ${env:KAFKA_PASSWORD}\nrules: r\n";
    let config = parse(text).unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("inline-pass"), "{shown}");
    assert_eq!(config.redact("b:9092 refuses hunter2 and inline-pass"), "b:9092 refuses *** and ***");
    check_key(
        "time: {lateness: \"${env:LATENESS}\"}\n",
        "3:18: time.lateness: `${env:LATENESS}` is not a duration: write a whole number and ms, s, m, h or d, \
         such as 10s",
    );
}

#[test]
fn an_alertmanager_is_a_url_of_plain_http_without_credentials() {
    let fault = |urls: &str, fault: &str| check_key(&format!("alertmanager: {{urls: [\"{urls}\"]}}\n"), fault);
    fault("am:9093", "3:23: alertmanager.urls: `am:9093` is not a URL such as http://alertmanager:9093");
    fault("http://am", "3:23: alertmanager.urls: `http://am` has no port: write it as in http://alertmanager:9093");
    fault(
        "https://am:1",
        "3:23: alertmanager.urls: `https://am:1` is https, which lictor does not speak: name a proxy that does",
    );
    fault(
        "http://u:hunter2@am:1",
        "3:23: alertmanager.urls: credentials do not belong into a URL: write `username` and `password`",
    );
    check_key(
        "alertmanager: {resend: 1m}\n",
        "1:1: alertmanager: has no `urls`: write at least alertmanager: {urls: [\"http://alertmanager:9093\"]}",
    );
    check_key(
        "alertmanager: {urls: [\"http://am:1\"], username: u}\n",
        "3:49: alertmanager: `username` and `password` go together",
    );
}

#[test]
fn the_credentials_of_an_alertmanager_are_in_no_message() {
    let more = "alertmanager: {urls: [\"http://am:1\"], username: u, password: \"${env:KAFKA_PASSWORD}\"}\n";
    let config = parse(&format!("{MINIMAL}{more}")).unwrap();
    let endpoint = &config.alertmanager.as_ref().unwrap().endpoints[0];
    assert_eq!(endpoint.headers[0].1.as_bytes(), b"Basic dTpodW50ZXIy");
    assert_eq!(format!("{endpoint:?}"), "http://am:1");
    assert_eq!(config.redact("it says hunter2 and dTpodW50ZXIy and Basic dTpodW50ZXIy"), "it says *** and *** and ***");
}

#[test]
fn a_console_that_others_can_reach_needs_a_token() {
    check_key(
        "console: {listen: \"0.0.0.0:81\"}\n",
        "3:19: console.listen: 0.0.0.0:81 is no loopback address: say a `console.token` or a `tls.client_ca`, \
         without which anybody who reaches it could look",
    );
    let token = "3:18: console.token: is shorter than 16 characters or has others than letters, digits and signs of \
                 ASCII: `openssl rand -hex 24` makes one";
    check_key("console: {token: hunter2}\n", token);
    check_key("console: {token: \"hunter2 hunter2 hunter2\"}\n", token);
    let console = |more: &str| parse(&format!("{MINIMAL}{more}")).unwrap().console;
    let at = |text: &str| Some(text.parse().unwrap());
    let (plain, with_token) = (console(""), console("console: {token: \"${env:CONSOLE_TOKEN}\"}\n"));
    assert_eq!(plain.place(at("127.0.0.1:8080"), false), Ok(ConsoleListen::Http));
    assert!(plain.place(at("0.0.0.0:8080"), false).unwrap_err().contains("`console.token`"));
    assert_eq!(with_token.place(at("0.0.0.0:8080"), false), Ok(ConsoleListen::Http));
    assert_eq!(plain.place(at("0.0.0.0:8080"), true), Ok(ConsoleListen::Http), "clients show certificates");
    assert_eq!(with_token.place(None, false), Ok(ConsoleListen::Off), "there is no place beside what is off");
    let own = console("console: {listen: \"[::1]:81\"}\n");
    assert_eq!(own.place(None, false), Ok(ConsoleListen::At("[::1]:81".parse().unwrap())));
    assert_eq!(console("console: {listen: off}\n").place(at("127.0.0.1:8080"), false), Ok(ConsoleListen::Off));
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("no/lictor.yaml")).unwrap_err();
    assert!(error.to_string().starts_with("no/lictor.yaml: "), "{error}");
}

#[test]
fn the_deployed_configuration_is_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/lictor.yaml");
    let config = Config::load(&path).unwrap();
    assert_eq!(config.application_id, "lictor");
    assert_eq!(config.http, Some("0.0.0.0:8080".parse().unwrap()));
    assert_eq!(config.topics, Topics::default());
}

/// What the deployed configuration shows in comments holds if the comments are taken away.
#[test]
fn the_commented_keys_of_the_deployed_configuration_are_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/lictor.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let shown: Vec<&str> = text.lines().map(|line| line.strip_prefix("#- ").unwrap_or(line)).collect();
    assert!(shown.len() > 40 && shown.iter().any(|line| line.starts_with("columns:")));
    let config = parse(&shown.join("\n")).unwrap();
    assert_eq!((config.time, config.epoch, config.limits), Default::default());
    assert_eq!(config.guard, GuardOptions { headers: config.guard.headers.clone(), ..GuardOptions::default() });
    assert_eq!(config.guard.headers.len(), 2);
    assert_eq!(config.topics, Topics::default());
    assert_eq!(config.columns.len(), 1);
}

#[test]
fn certificates_are_files_of_the_configurations_folder_and_stand_for_a_token() {
    let more = "tls: {cert: s.pem, key: /run/s.key, client_ca: ca.pem}\nconsole: {listen: \"0.0.0.0:81\"}\n";
    let tls = parse(&format!("{MINIMAL}{more}")).unwrap().tls.unwrap();
    assert_eq!((tls.cert, tls.key), ("etc/s.pem".into(), "/run/s.key".into()));
    assert_eq!(tls.client_ca, Some("etc/ca.pem".into()));
    check_key("tls: {cert: s.pem}\n", "3:13: tls: needs a `cert` and its `key`, each the name of a PEM file");
    check_key("tls: {cert: s.pem, key: s.key, client_ca: \"\"}\n", "3:43: tls.client_ca: `` is empty");
    check_key("tls: {}\n", "1:1: tls: needs a `cert` and its `key`, each the name of a PEM file");
}
