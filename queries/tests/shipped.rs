//! The shipped rules compile without a fault.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use lictor_queries::{ReferenceDecl, References, RuleFile, compile, references};

fn shipped() -> Vec<RuleFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let mut files = Vec::new();
    for domain in fs::read_dir(&root).unwrap().filter_map(|e| fs::read_dir(e.unwrap().path()).ok()) {
        for path in domain.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "sql")) {
            let file = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            files.push(RuleFile { file, text: fs::read_to_string(&path).unwrap() });
        }
    }
    files.sort_by(|a, b| a.file.cmp(&b.file));
    files
}

fn load(table: &ReferenceDecl) -> arrow::array::RecordBatch {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let path = rules.join(&table.file).parent().unwrap().join(&table.location);
    let schema = table.schema.clone().expect("shipped tables declare their columns");
    let reader = arrow::csv::ReaderBuilder::new(Arc::clone(&schema)).with_header(true);
    let batches: Vec<_> = reader.build(fs::File::open(path).unwrap()).unwrap().map(Result::unwrap).collect();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

#[test]
fn the_shipped_rules_compile_without_a_fault() {
    let files = shipped();
    let tables: References =
        references(&files).iter().map(|t| (t.name.clone(), Ok(load(t)))).collect::<BTreeMap<_, _>>();
    let (rules, faults) = compile(&files, &tables);
    let text_of = |file: &str| files.iter().find(|f| f.file == file).map_or("", |f| f.text.as_str());
    let rendered: String = faults.iter().map(|f| f.render(text_of(&f.file), false)).collect();
    assert!(faults.is_empty(), "{rendered}");
    assert!(rules.rules.len() >= 6);
    for rule in &rules.rules {
        assert!(!rule.header.description.is_empty(), "{} has no description", rule.header.name);
    }
}
