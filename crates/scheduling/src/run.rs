//! Runs of equal values: what many queries have in common is counted once for all of them. Pure.

/// Equal values that come one after the other.
#[derive(Debug)]
pub struct Run<T>(Option<(T, usize)>);

impl<T> Default for Run<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy + PartialEq> Run<T> {
    /// One more; if it is another value, the run before it is given to `count`.
    pub fn add(&mut self, value: T, count: impl Fn(T, usize)) {
        match &mut self.0 {
            Some((same, n)) if *same == value => *n += 1,
            run => {
                if let Some((other, n)) = run.replace((value, 1)) {
                    count(other, n);
                }
            }
        }
    }

    /// The last run is over.
    pub fn end(self, count: impl Fn(T, usize)) {
        if let Some((value, n)) = self.0 {
            count(value, n);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn each_run_is_counted_once() {
        let seen = RefCell::new(Vec::new());
        let count = |value, n| seen.borrow_mut().push((value, n));
        let mut run = Run::default();
        for value in ['a', 'a', 'b', 'a'] {
            run.add(value, count);
        }
        run.end(count);
        assert_eq!(seen.into_inner(), [('a', 2), ('b', 1), ('a', 1)]);
        Run::<char>::default().end(|_, _| panic!("nothing to count"));
    }
}
