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
    /// One more. If it is another value: the one before it, and how often it came.
    pub fn add(&mut self, value: T) -> Option<(T, usize)> {
        match &mut self.0 {
            Some((same, n)) if *same == value => {
                *n += 1;
                None
            }
            run => run.replace((value, 1)),
        }
    }

    #[must_use]
    pub fn end(self) -> Option<(T, usize)> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_is_counted_once() {
        let mut run = Run::default();
        let mut seen: Vec<_> = ['a', 'a', 'b', 'a'].iter().filter_map(|c| run.add(*c)).collect();
        seen.extend(run.end());
        assert_eq!(seen, [('a', 2), ('b', 1), ('a', 1)]);
        assert_eq!(Run::<char>::default().end(), None);
    }
}
