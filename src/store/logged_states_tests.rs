//! What a log before a table keeps, through kills and while others read.

use super::*;

/// A table in memory.
#[derive(Default)]
struct Table(Mutex<BTreeMap<String, String>>);

impl SoftTable for Table {
    fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.0.lock().get(key).cloned())
    }

    fn put(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError> {
        let mut values = self.0.lock();
        if values.len() >= max && !values.contains_key(key) {
            return Ok(Put::Full);
        }
        let before = values.insert(key.to_owned(), value.to_owned());
        Ok(if before.is_none() { Put::Stored } else { Put::Present })
    }

    fn entries(&self) -> usize {
        self.0.lock().len()
    }

    fn remove(&self, key: &str) -> Result<(), StoreError> {
        self.0.lock().remove(key);
        Ok(())
    }

    fn remove_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        self.0.lock().retain(|key, _| !key.starts_with(prefix));
        Ok(())
    }

    fn page(&self, after: Option<&str>, bytes: usize) -> Result<Vec<(String, String)>, StoreError> {
        let mut left = bytes;
        let all = self.0.lock();
        let rest = all.iter().filter(|(key, _)| after.is_none_or(|after| key.as_str() > after));
        let some = rest.take_while(|(key, value)| {
            let is_room = left > 0;
            left = left.saturating_sub(key.len() + value.len());
            is_room
        });
        Ok(some.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn each(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<(), StoreError> {
        self.0.lock().iter().for_each(|(key, value)| visit(key, value));
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn put_if_absent(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError> {
        if self.get(key)?.is_some() { Ok(Put::Present) } else { self.put(key, value, max) }
    }
}

struct Opened {
    table: Arc<Table>,
    states: LoggedStates,
}

impl Opened {
    fn on(table: Arc<Table>, dir: &Path) -> Self {
        let states = LoggedStates::open(Arc::<Table>::clone(&table), dir).unwrap();
        Self { table, states }
    }

    fn all(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let each = self.states.each(&mut |key, value| {
            assert_eq!(all.insert(key.to_owned(), value.to_owned()), None, "{key} twice");
        });
        each.unwrap();
        all
    }

    fn put(&self, key: &str, value: &str) -> Put {
        self.states.put_by_log(key, value, 100).unwrap()
    }
}

fn pairs(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn what_was_flushed_is_there_after_a_kill_wherever_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::on(Arc::default(), dir.path());
    opened.table.put("old", "1", 9).unwrap();
    assert_eq!(opened.put("old", "2"), Put::Present);
    assert_eq!((opened.put("new", "1"), opened.put("new", "2")), (Put::Stored, Put::Present));
    opened.states.flush().unwrap();
    let all = pairs(&[("new", "2"), ("old", "2")]);
    assert_eq!((opened.all(), opened.states.entries()), (all.clone(), 2));
    assert_eq!(opened.table.0.lock().clone(), pairs(&[("old", "1")]));
    // A kill; then one that was moved, while the other changed, and a kill again.
    let opened = Opened::on(opened.table, dir.path());
    assert_eq!((opened.all(), opened.states.entries()), (all, 2));
    assert!(!LoggedStates::settle(&opened.states).unwrap());
    assert_eq!(opened.table.0.lock().clone(), pairs(&[("new", "2"), ("old", "2")]));
    assert_eq!(std::fs::metadata(dir.path().join("states")).unwrap().len(), 0);
    opened.put("old", "3");
    opened.states.flush().unwrap();
    let opened = Opened::on(opened.table, dir.path());
    assert_eq!(opened.all(), pairs(&[("new", "2"), ("old", "3")]));
}

#[test]
fn what_was_forgotten_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::on(Arc::default(), dir.path());
    for key in ["a:1", "a:2", "b:1", "c:1"] {
        opened.put(key, "x");
    }
    opened.states.flush().unwrap();
    opened.states.remove_prefix("a:").unwrap();
    opened.states.remove("c:1").unwrap();
    opened.states.flush().unwrap();
    assert_eq!((opened.all(), opened.states.entries()), (pairs(&[("b:1", "x")]), 1));
    let opened = Opened::on(opened.table, dir.path());
    assert_eq!(opened.all(), pairs(&[("b:1", "x")]));
    opened.states.settle_all().unwrap();
    assert_eq!(opened.table.0.lock().clone(), pairs(&[("b:1", "x")]));
}

#[test]
fn the_table_s_bound_holds_for_both_and_the_log_has_one() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::on(Arc::default(), dir.path());
    let put = |key: &str, max| opened.states.put_by_log(key, "x", max).unwrap();
    assert_eq!((put("a", 2), put("b", 2), put("c", 2)), (Put::Stored, Put::Stored, Put::Full));
    assert_eq!(put("a", 2), Put::Present);
    opened.states.settle_all().unwrap();
    assert_eq!((put("c", 2), put("c", 3)), (Put::Full, Put::Stored));
    let long = "x".repeat(100_000);
    for n in 0..400 {
        opened.states.put_by_log(&n.to_string(), &long, 1_000).unwrap();
        assert!(opened.states.log.lock().bytes() < LOG_MAX_BYTES + 200_000);
    }
    assert_eq!(opened.all().len(), 403);
}

/// A table whose pages take long.
#[derive(Default)]
struct Slow {
    table: Table,
    /// Done while a page is read.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl SoftTable for Slow {
    fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.table.get(key)
    }

    fn put(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError> {
        self.table.put(key, value, max)
    }

    fn entries(&self) -> usize {
        self.table.entries()
    }

    fn remove(&self, key: &str) -> Result<(), StoreError> {
        self.table.remove(key)
    }

    fn remove_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        self.table.remove_prefix(prefix)
    }

    fn page(&self, after: Option<&str>, bytes: usize) -> Result<Vec<(String, String)>, StoreError> {
        if let Some(meanwhile) = self.meanwhile.lock().take() {
            meanwhile();
        }
        self.table.page(after, bytes)
    }

    fn each(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<(), StoreError> {
        self.table.each(visit)
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn put_if_absent(&self, key: &str, value: &str, max: usize) -> Result<Put, StoreError> {
        self.table.put_if_absent(key, value, max)
    }
}

#[test]
fn feedback_is_taken_while_a_page_is_read_and_the_page_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let table = Arc::new(Slow::default());
    let states = LoggedStates::open(Arc::<Slow>::clone(&table), dir.path()).unwrap();
    let states = Arc::new(states);
    let keys: Vec<String> = (0..40).map(|n| format!("{n:02}")).collect();
    for (n, key) in keys.iter().enumerate() {
        states.put_by_log(key, "x", 100).unwrap();
        if n == 20 {
            states.settle_all().unwrap();
        }
    }
    let mut after: Option<String> = None;
    let mut found = Vec::new();
    loop {
        let (feedback, at) = (Arc::clone(&states), found.len());
        *table.meanwhile.lock() = Some(Box::new(move || {
            feedback.put_by_log(&format!("z{at:02}"), "new", 100).unwrap();
            feedback.settle_all().unwrap();
        }));
        let page = states.page(after.as_deref(), 9).unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        found.extend(page.into_iter().map(|(key, _)| key).filter(|key| key < &"z".to_owned()));
        if found.len() == keys.len() {
            break;
        }
    }
    assert_eq!(found, keys);
}
