//! The parts that all JSON visitors of [`super::parse`] have in common, as macros.
//!
//! The names in them are those of the place of use.

/// Visitor methods that refuse every JSON type but the wanted one; `$refuse(self, type name)` makes
/// the error.
macro_rules! refuse {
    ($refuse:path; $($kind:ident),*) => { $(refuse!(@ $kind $refuse);)* };
    (@ null $refuse:path) => {
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> { Err($refuse(self, "Null")) }
    };
    (@ bool $refuse:path) => {
        fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
            Err($refuse(self, if value { "True" } else { "False" }))
        }
    };
    (@ number $refuse:path) => {
        fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
            Err($refuse(self, "Number"))
        }
        fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
            Err($refuse(self, "Number"))
        }
        fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
            Err($refuse(self, "Number"))
        }
    };
    (@ string $refuse:path) => {
        fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
            Err($refuse(self, "String"))
        }
    };
    (@ array $refuse:path) => {
        fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err($refuse(self, "Array"))
        }
    };
    (@ object $refuse:path) => {
        fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err($refuse(self, "Object"))
        }
    };
}

/// Makes a visitor a seed that accepts any JSON value, and gives it serde's required description.
macro_rules! seed {
    ($name:ident => $value:ty) => {
        impl<'de> DeserializeSeed<'de> for $name<'_> {
            type Value = $value;
            fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<$value, D::Error> {
                from.deserialize_any(self)
            }
        }
    };
}

macro_rules! expecting {
    ($text:literal) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str($text)
        }
    };
}

pub(super) use {expecting, refuse, seed};
