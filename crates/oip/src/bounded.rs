//! Lists that stop to grow at their bound: a body of a few megabytes can name millions of tensors.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Tensors in one request, more than any model has here.
pub const TENSORS_MAX: usize = 64;
/// Outputs that one request names.
pub const OUTPUTS_MAX: usize = 64;
/// Dimensions of a tensor.
pub const RANK_MAX: usize = 32;

/// At most `MAX` values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AtMost<T, const MAX: usize>(pub(crate) Vec<T>);

impl<T, const MAX: usize> Default for AtMost<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for AtMost<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedElements(PhantomData))
    }
}

struct BoundedElements<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for BoundedElements<T, MAX> {
    type Value = AtMost<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {MAX}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::custom(format_args!("more than {MAX} elements")));
            }
            list.push(element);
        }
        Ok(AtMost(list))
    }
}
