//! The directives that hold, found by what a request says of itself.
//!
//! A directive selects by a set of columns; all that select by the same set stand in one hash map, under the texts that
//! these columns must have. So a request costs one look-up per set, and there are as many sets as kinds of rules.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use lictor_schemas::columns::RequestColumns;
use lictor_schemas::event::Instruction;
use lictor_schemas::rule::Mode;
use lictor_schemas::time::EventTime;

use super::held::{Change, Held, SelectorTexts};

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It was taken over.
    Taken,
    /// The directive is over, and is held no more.
    Ended,
    /// A higher revision is held already.
    Outdated,
    /// No more directives can be held: this one is not known.
    LeftOut,
}

/// What applies to a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The strongest directive that is to be applied.
    pub strongest: Option<Arc<Held>>,
    /// Those that warn, in the order of their ids.
    pub warnings: Vec<Arc<Held>>,
    /// The strongest of those that are only looked at.
    pub shadow: Option<Arc<Held>>,
}

/// All directives that hold.
#[derive(Debug)]
pub struct DirectiveIndex {
    directives_max: usize,
    by_id: HashMap<Arc<str>, Entry>,
    /// One per set of columns; an empty one is used again.
    sets: Vec<SelectorSet>,
    /// The next to expire first.
    ends: BTreeSet<(EventTime, Arc<str>)>,
    is_incomplete: bool,
}

/// The directives that select by the same columns.
#[derive(Debug)]
struct SelectorSet {
    columns: Vec<String>,
    /// By the texts of those columns, see [`push_text`].
    directives: HashMap<Box<str>, Vec<Arc<Held>>>,
}

/// Where a directive stands.
#[derive(Debug)]
struct Entry {
    held: Arc<Held>,
    set: usize,
    key: Box<str>,
}

impl DirectiveIndex {
    /// Holds nothing yet, and never more than `directives_max`.
    #[must_use]
    pub fn new(directives_max: usize) -> Self {
        Self { directives_max, by_id: HashMap::new(), sets: Vec::new(), ends: BTreeSet::new(), is_incomplete: false }
    }

    /// How many directives are held, expired ones included until [`DirectiveIndex::expire`] comes to them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many sets of columns directives select by: as many look-ups an answer takes.
    #[must_use]
    pub fn selector_sets(&self) -> usize {
        self.sets.iter().filter(|set| !set.directives.is_empty()).count()
    }

    /// Whether a directive was left out.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    /// The directives that are held, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Held> {
        self.by_id.values().map(|entry| entry.held.as_ref())
    }

    /// Takes over what a record says.
    pub fn apply(&mut self, change: Change) -> Put {
        match change {
            Change::End(directive_id) => {
                self.remove(&directive_id);
                Put::Ended
            }
            Change::Put(held, selector) => self.put(*held, selector),
        }
    }

    fn put(&mut self, held: Held, selector: SelectorTexts) -> Put {
        match self.by_id.get(held.directive_id.as_str()) {
            Some(entry) if entry.held.revision > held.revision => return Put::Outdated,
            None if self.by_id.len() >= self.directives_max => {
                self.is_incomplete = true;
                return Put::LeftOut;
            }
            _ => {}
        }
        self.remove(&held.directive_id);
        let mut key = String::new();
        let (columns, texts): (Vec<String>, Vec<Option<String>>) = selector.into_iter().unzip();
        texts.iter().for_each(|text| push_text(&mut key, text.as_deref()));
        let (set, key) = (self.set_of(columns), key.into_boxed_str());
        let (id, held): (Arc<str>, _) = (held.directive_id.as_str().into(), Arc::new(held));
        self.sets[set].directives.entry(key.clone()).or_default().push(Arc::clone(&held));
        self.ends.insert((held.valid_until, Arc::clone(&id)));
        self.by_id.insert(id, Entry { held, set, key });
        Put::Taken
    }

    /// The place of a set of columns.
    fn set_of(&mut self, columns: Vec<String>) -> usize {
        if let Some(known) = self.sets.iter().position(|set| set.columns == columns) {
            return known;
        }
        if let Some(free) = self.sets.iter().position(|set| set.directives.is_empty()) {
            self.sets[free].columns = columns;
            return free;
        }
        self.sets.push(SelectorSet { columns, directives: HashMap::new() });
        self.sets.len() - 1
    }

    fn remove(&mut self, directive_id: &str) {
        let Some((id, Entry { held, set, key })) = self.by_id.remove_entry(directive_id) else { return };
        self.ends.remove(&(held.valid_until, id));
        let directives = &mut self.sets[set].directives;
        if let Some(others) = directives.get_mut(&key) {
            others.retain(|other| other.directive_id != directive_id);
            if others.is_empty() {
                directives.remove(&key);
            }
        }
    }

    /// Drops directives whose end has come by `now`, the oldest first, at most `directives_max`; returns how many.
    pub fn expire(&mut self, now: EventTime, directives_max: usize) -> usize {
        let due = self.ends.iter().take_while(|(end, _)| *end <= now).take(directives_max);
        let due: Vec<Arc<str>> = due.map(|(_, id)| Arc::clone(id)).collect();
        due.iter().for_each(|id| self.remove(id));
        due.len()
    }

    /// What applies to a request at `now`.
    #[must_use]
    pub fn find(&self, request: &RequestColumns<'_>, now: EventTime) -> Found {
        let (mut found, mut key) = (Found::default(), String::new());
        for set in self.sets.iter().filter(|set| !set.directives.is_empty()) {
            key.clear();
            set.columns.iter().for_each(|column| push_text(&mut key, request.get(column)));
            let directives = set.directives.get(key.as_str()).into_iter().flatten();
            for held in directives.filter(|held| held.valid_until > now) {
                found.add(held);
            }
        }
        found.warnings.sort_by(|a, b| a.directive_id.cmp(&b.directive_id));
        found
    }
}

impl Found {
    fn add(&mut self, held: &Arc<Held>) {
        let strongest = match held.mode {
            Mode::Enforce => &mut self.strongest,
            Mode::Shadow => &mut self.shadow,
        };
        if strongest.as_ref().is_none_or(|strongest| rank(held) > rank(strongest)) {
            *strongest = Some(Arc::clone(held));
        }
        if held.mode == Mode::Enforce && held.action == Instruction::Warn {
            self.warnings.push(Arc::clone(held));
        }
    }
}

/// The stronger first; of two that are as strong the one that holds longer, and then whichever, but always the same.
fn rank(held: &Held) -> (Instruction, EventTime, &str) {
    (held.action, held.valid_until, &held.directive_id)
}

/// Appends the text of a column so that no two lists of texts give the same key.
fn push_text(key: &mut String, text: Option<&str>) {
    match text {
        Some(text) => write!(key, "{}:{text}", text.len()).expect("writing to a string"),
        None => key.push('-'),
    }
}

#[cfg(test)]
mod tests;
