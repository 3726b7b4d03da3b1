//! `lictor topics --acls`: the rights that lictor and its readers need, as `kafka-acls.sh` commands.
//!
//! No broker is asked: what is needed follows from the configuration and from the rules. The commands are for somebody
//! who may grant rights, so they name a file with that person's credentials.

use std::collections::BTreeSet;
use std::io::{self, Write};

use lictor_engine::config::{Config, internal_topics};
use lictor_engine::pipeline::Stages;
use lictor_engine::rules_dir;

/// Where whoever grants rights has their own.
const ADMIN_FILE: &str = "admin.properties";

const READING: &[&str] = &["Read", "Describe"];
const WRITING: &[&str] = &["Write", "Describe", "Create", "DescribeConfigs"];
const KEEPING: &[&str] = &["Read", "Write", "Describe", "Create", "DescribeConfigs"];
const REPLAYING: &[&str] = &["Read", "Write", "Describe"];
const JOINING: &[&str] = &["Read"];
const COMMITTING: &[&str] = &["Write", "Describe"];

/// What rights are granted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Topic,
    Group,
    TransactionalId,
}

impl Resource {
    fn option(self) -> &'static str {
        match self {
            Self::Topic => "--topic",
            Self::Group => "--group",
            Self::TransactionalId => "--transactional-id",
        }
    }
}

/// Rights on resources of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    /// What for, in words.
    purpose: &'static str,
    operations: &'static [&'static str],
    resource: Resource,
    names: Vec<String>,
    /// Whether the names are the beginnings of names.
    is_prefix: bool,
}

impl Grant {
    fn new(purpose: &'static str, operations: &'static [&'static str], resource: Resource, names: Vec<String>) -> Self {
        Self { purpose, operations, resource, names, is_prefix: false }
    }

    fn prefixed(self) -> Self {
        Self { is_prefix: true, ..self }
    }
}

/// What the rules read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Read {
    telemetry: Vec<String>,
    tables: Vec<String>,
}

impl Read {
    /// Of rules that cannot be compiled as a whole nothing is known: they may read every input. Says so then.
    fn by_rules(config: &Config) -> (Self, Option<String>) {
        let every: Vec<String> = config.topics.signals().into_keys().collect();
        let loaded = match rules_dir::load(&config.rules, config.prices.as_deref()) {
            Ok(loaded) => loaded,
            Err(error) => return (Self { telemetry: every, tables: Vec::new() }, Some(error.to_string())),
        };
        let tables: BTreeSet<String> = loaded.topic_tables().into_iter().map(|table| table.location).collect();
        let tables = tables.into_iter().collect();
        if !loaded.diagnostics.is_empty() {
            let faults = format!("{}: {} faults", config.rules.display(), loaded.diagnostics.len());
            return (Self { telemetry: every, tables }, Some(faults));
        }
        let stages = Stages::new(loaded.rules, loaded.prices, &config.pipeline_settings());
        (Self { telemetry: stages.scan.topics_read().into_iter().collect(), tables }, None)
    }
}

/// What lictor itself does.
fn of_lictor(config: &Config, read: Read) -> Vec<Grant> {
    let app = &config.application_id;
    let named = |purposes: &[&str]| purposes.iter().map(|purpose| format!("{app}-{purpose}")).collect::<Vec<_>>();
    let outputs = config.topics.output_specs().into_iter().map(|spec| spec.name).collect();
    let mut groups = named(&["scan", "judge"]);
    if !read.tables.is_empty() {
        groups.extend(named(&["tables"]));
    }
    let mut followed = Vec::new();
    if config.alertmanager.is_some() {
        groups.extend(named(&["alerts"]));
        followed.push(config.topics.outputs.directives.clone());
    }
    let grants = [
        Grant::new("the telemetry that rules read", READING, Resource::Topic, read.telemetry),
        Grant::new("topics that are reference tables", READING, Resource::Topic, read.tables),
        Grant::new("what the Alertmanager is told of", READING, Resource::Topic, followed),
        Grant::new("what is published and put aside", WRITING, Resource::Topic, outputs),
        Grant::new("what lictor keeps for itself", KEEPING, Resource::Topic, internal_topics(app).into()),
        Grant::new("the groups of its tasks", JOINING, Resource::Group, groups),
        Grant::new("a transactional id per task and instance", COMMITTING, Resource::TransactionalId, {
            named(&["scan-", "judge-"])
        })
        .prefixed(),
    ];
    grants.into_iter().filter(|grant| !grant.names.is_empty()).collect()
}

/// What a reader of decisions does, whose group is called so.
fn of_consumer(config: &Config, group: &str) -> Vec<Grant> {
    let outputs = &config.topics.outputs;
    let mut topics = vec![outputs.enforcement.clone(), outputs.directives.clone(), outputs.directives_shadow.clone()];
    topics.extend(outputs.otlp.iter().map(|otlp| otlp.topic.clone()));
    let tail = format!("{}-tail-", config.application_id);
    vec![
        Grant::new("what lictor decides", READING, Resource::Topic, topics),
        Grant::new("the consumer's group", JOINING, Resource::Group, vec![group.to_owned()]),
        Grant::new("groups of `lictor tail`", JOINING, Resource::Group, vec![tail]).prefixed(),
    ]
}

/// What somebody does who looks after dead letters.
fn of_operator(config: &Config) -> Vec<Grant> {
    let inputs = config.topics.signals().into_keys().collect();
    let id = || vec![super::dlq::replay_id(config)];
    vec![
        Grant::new("what was put aside", READING, Resource::Topic, vec![config.topics.outputs.dead_letter.clone()]),
        Grant::new("where records are replayed to", REPLAYING, Resource::Topic, inputs),
        Grant::new("what notes that they were", JOINING, Resource::Group, id()),
        Grant::new("the transactions of `lictor dlq replay`", COMMITTING, Resource::TransactionalId, id()),
    ]
}

/// Whom rights are for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Principals<'a> {
    /// As whom lictor runs, such as `User:lictor`.
    pub(super) lictor: Option<&'a str>,
    /// As whom decisions are read.
    pub(super) consumer: Option<&'a str>,
    /// The group of that consumer; if nobody says, what follows the principal's kind.
    pub(super) group: Option<&'a str>,
    /// As whom dead letters are replayed.
    pub(super) operator: Option<&'a str>,
}

impl Principals<'_> {
    /// Whether rights are asked for at all.
    pub(super) fn are_named(self) -> bool {
        self.lictor.is_some() || self.consumer.is_some() || self.operator.is_some()
    }
}

/// Writes the commands that grant what each principal needs.
pub(super) fn print(out: &mut dyn Write, config: &Config, principals: Principals<'_>) -> io::Result<()> {
    let servers = config.kafka.bootstrap_servers();
    writeln!(out, "# {ADMIN_FILE}: the client properties of somebody who may grant rights on {servers}")?;
    if let Some(principal) = principals.lictor {
        let (read, unread) = Read::by_rules(config);
        if let Some(reason) = unread {
            eprintln!(
                "lictor: {reason}: rights for every input topic, and for reference tables as far as they are known"
            );
        }
        print_grants(out, servers, principal, &of_lictor(config, read))?;
    }
    if let Some(principal) = principals.consumer {
        let name = principal.split_once(':').map_or(principal, |(_, name)| name);
        print_grants(out, servers, principal, &of_consumer(config, principals.group.unwrap_or(name)))?;
    }
    if let Some(principal) = principals.operator {
        print_grants(out, servers, principal, &of_operator(config))?;
    }
    Ok(())
}

fn print_grants(out: &mut dyn Write, servers: &str, principal: &str, grants: &[Grant]) -> io::Result<()> {
    for grant in grants {
        writeln!(out, "\n# {principal}: {}", grant.purpose)?;
        write!(out, "kafka-acls.sh --bootstrap-server {} --command-config {ADMIN_FILE}", quoted(servers))?;
        write!(out, " --add --allow-principal {} \\\n ", quoted(principal))?;
        grant.operations.iter().try_for_each(|operation| write!(out, " --operation {operation}"))?;
        grant.names.iter().try_for_each(|name| write!(out, " {} {}", grant.resource.option(), quoted(name)))?;
        writeln!(out, "{}", if grant.is_prefix { " --resource-pattern-type prefixed" } else { "" })?;
    }
    Ok(())
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ":._,=@/+-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    const RULES: &str =
        "CREATE EXTERNAL TABLE budgets (key VARCHAR, usd DOUBLE) STORED AS KAFKA LOCATION 'acme.budgets';
        CREATE RULE dear WITH (action = 'warn', reason_code = 'x_dear') AS
        SELECT s.team FROM spans AS s JOIN budgets AS b ON b.key = s.team WHERE s.cost_total > b.usd;";

    fn config(rules: &str, more: &str) -> (TempDir, Config) {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("r.sql"), rules).unwrap();
        let path = dir.path().join("lictor.yaml");
        let text = format!("kafka: {{bootstrap.servers: \"k1:9092,k2:9092\"}}\nrules: .\n{more}");
        fs::write(&path, text).unwrap();
        let config = Config::load(&path).unwrap();
        (dir, config)
    }

    fn printed(config: &Config, principals: Principals<'_>) -> String {
        let mut out = Vec::new();
        print(&mut out, config, principals).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lictor_gets_what_its_configuration_and_its_rules_ask_for() {
        let (_dir, config) = config(RULES, "application_id: eu\ntopics: {otlp: eu.otlp}\n");
        let text = printed(&config, Principals { lictor: Some("User:lictor"), ..Principals::default() });
        let of = "kafka-acls.sh --bootstrap-server k1:9092,k2:9092 --command-config admin.properties --add \
                  --allow-principal User:lictor \\\n ";
        let expected = [
            "--operation Read --operation Describe --topic otlp_spans",
            "--operation Read --operation Describe --topic acme.budgets",
            "--operation Write --operation Describe --operation Create --operation DescribeConfigs \
             --topic lictor.enforcement --topic lictor.directives --topic lictor.directives.shadow \
             --topic lictor.dead-letter --topic lictor.late --topic eu.otlp",
            "--operation Read --operation Write --operation Describe --operation Create --operation DescribeConfigs \
             --topic eu.shuffle --topic eu.state",
            "--operation Read --group eu-scan --group eu-judge --group eu-tables",
            "--operation Write --operation Describe --transactional-id eu-scan- --transactional-id eu-judge- \
             --resource-pattern-type prefixed",
        ];
        let found: Vec<&str> = text.split(of).skip(1).filter_map(|rest| Some(rest.lines().next()?.trim())).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_consumer_reads_and_nothing_else() {
        let (_dir, config) = config(RULES, "");
        let gateway = Principals { consumer: Some("User:CN=edge gateway"), ..Principals::default() };
        let text = printed(&config, gateway);
        assert!(text.contains("--allow-principal 'User:CN=edge gateway'"), "{text}");
        assert!(text.contains("--operation Read --group 'CN=edge gateway'\n"), "{text}");
        let topics = "--topic lictor.enforcement --topic lictor.directives --topic lictor.directives.shadow\n";
        assert!(text.contains(topics) && !text.contains("Write"), "{text}");
        let text = printed(&config, Principals { group: Some("edge"), ..gateway });
        assert!(text.contains("--operation Read --group edge\n"), "{text}");
    }

    #[test]
    fn an_operator_reads_what_was_put_aside_and_writes_it_back() {
        let (_dir, config) = config(RULES, "");
        let text = printed(&config, Principals { operator: Some("User:ops"), ..Principals::default() });
        for grant in [
            "--operation Read --operation Describe --topic lictor.dead-letter\n",
            "--operation Read --operation Write --operation Describe --topic otlp_logs --topic otlp_metrics",
            "--operation Read --group lictor-dlq-replay\n",
            "--operation Write --operation Describe --transactional-id lictor-dlq-replay\n",
        ] {
            assert!(text.contains(grant), "{grant}\n{text}");
        }
    }

    #[test]
    fn rules_that_are_not_whole_may_read_everything() {
        let (_dir, config) = config(&format!("{RULES} CREATE RULE"), "");
        let (read, reason) = Read::by_rules(&config);
        assert_eq!(read.telemetry, ["otlp_logs", "otlp_metrics", "otlp_spans"]);
        assert_eq!(read.tables, ["acme.budgets"]);
        assert!(reason.unwrap().ends_with("1 faults"));
    }

    /// The operations that a cell of the README names.
    fn operations(rights: &str) -> BTreeSet<&str> {
        let words = rights.split(|c: char| !c.is_alphabetic());
        words.filter(|word| KEEPING.contains(word)).collect()
    }

    /// Whatever is granted on a name is what a row of the README's table of rights says of it.
    #[test]
    fn the_readme_says_the_same() {
        let more = "topics: {otlp: lictor.otlp}\nalertmanager: {urls: [\"http://a:9093\"]}\n";
        let (_dir, config) = config(RULES, more);
        let (read, _) = Read::by_rules(&config);
        let every = Read { telemetry: config.topics.signals().into_keys().collect(), ..read };
        let mut grants = of_lictor(&config, every);
        grants.extend(of_consumer(&config, "lictor-consumer").into_iter().filter(|grant| grant.is_prefix));
        grants.extend(of_operator(&config));
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        let readme = fs::read_to_string(readme).unwrap();
        let table = readme.split("| resource | rights |").nth(1).unwrap().split("\n\n").next().unwrap();
        let rows: Vec<(&str, &str)> = table.lines().filter_map(|line| line.trim_matches('|').split_once('|')).collect();
        for grant in &grants {
            // Telemetry that is a table has whatever name it has.
            for name in grant.names.iter().filter(|name| *name != "acme.budgets") {
                let of_name = if grant.is_prefix { format!("`{name}") } else { format!("`{name}`") };
                let of_name = rows.iter().filter(|(resources, _)| resources.contains(&of_name));
                let said: Vec<BTreeSet<&str>> = of_name.map(|(_, rights)| operations(rights)).collect();
                let granted = grant.operations.iter().copied().collect();
                assert!(said.contains(&granted), "README.md grants {said:?} on {name}, and not {granted:?}");
            }
        }
    }
}
