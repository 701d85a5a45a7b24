//! What a shape says of a request's rows, before anything is made for them.

use crate::error::Fault;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) count: usize,
    /// Elements of a row.
    pub(crate) each: usize,
    pub(crate) all: usize,
}

impl Rows {
    /// Rows of numbers: the first dimension, each the flat rest.
    pub(crate) fn of_numbers(shape: &[u64], rows_max: usize) -> Result<Self, Fault> {
        if shape.len() < 2 {
            return Err(Fault::NoRows);
        }
        Self::checked(shape, rows_max)
    }

    /// Rows of one text each.
    pub(crate) fn of_texts(shape: &[u64], rows_max: usize) -> Result<Self, Fault> {
        match shape {
            [_] | [_, 1] => Self::checked(shape, rows_max),
            _ => Err(Fault::NotOneText),
        }
    }

    fn checked(shape: &[u64], rows_max: usize) -> Result<Self, Fault> {
        let [rows, rest @ ..] = shape else { return Err(Fault::NoRows) };
        if shape.contains(&0) {
            return Err(Fault::Empty);
        }
        let each = rest.iter().try_fold(1_u64, |product, &n| product.checked_mul(n));
        let all = each.and_then(|each| each.checked_mul(*rows));
        let number = |n: Option<u64>| {
            // A body has fewer bytes than a signed number can count.
            let n = n.and_then(|n| usize::try_from(n).ok());
            n.filter(|n| isize::try_from(*n).is_ok()).ok_or(Fault::Overflow)
        };
        let (each, all) = (number(each)?, number(all)?);
        match usize::try_from(*rows) {
            Ok(rows) if rows <= rows_max => Ok(Self { count: rows, each, all }),
            _ => Err(Fault::TooManyRows { rows: *rows, max: rows_max }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_dimension_is_the_rows() {
        let rows = |rows, each, all| Ok(Rows { count: rows, each, all });
        assert_eq!(Rows::of_numbers(&[2, 3], 10), rows(2, 3, 6));
        assert_eq!(Rows::of_numbers(&[1, 3, 224, 224], 10), rows(1, 150_528, 150_528));
        assert_eq!(Rows::of_texts(&[3], 10), rows(3, 1, 3));
        assert_eq!(Rows::of_texts(&[3, 1], 10), rows(3, 1, 3));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let max = u64::MAX;
        assert_eq!(Rows::of_numbers(&[], 10), Err(Fault::NoRows));
        assert_eq!(Rows::of_numbers(&[7], 10), Err(Fault::NoRows));
        assert_eq!(Rows::of_numbers(&[0, max], 10), Err(Fault::Empty));
        assert_eq!(Rows::of_numbers(&[1, 0], 10), Err(Fault::Empty));
        assert_eq!(Rows::of_numbers(&[2, 1 << 63], 10), Err(Fault::Overflow));
        assert_eq!(Rows::of_numbers(&[1, 1 << 63], 10), Err(Fault::Overflow));
        assert_eq!(Rows::of_numbers(&[1, max, max, max], 10), Err(Fault::Overflow));
        assert_eq!(Rows::of_numbers(&[11, 1], 10), Err(Fault::TooManyRows { rows: 11, max: 10 }));
        assert_eq!(Rows::of_texts(&[2, 2], 10), Err(Fault::NotOneText));
        assert_eq!(Rows::of_texts(&[1, 1, 1], 10), Err(Fault::NotOneText));
    }
}
