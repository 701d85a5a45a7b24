//! One declaration a key: its name, type, default, rule and documentation, of which the struct, its
//! default, the schema, `config/default.toml`, the flags and the environment follow.

/// Declares the struct of one table of the config file.
///
/// Of each key it takes the documentation (the text above the key in `config/default.toml`), the
/// flag of `clipper serve` if there is one, the type, the default and the rule.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        pub struct $section:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[flag($flag:literal, $value:literal)])?
                $key:ident: $kind:ty = $default:expr, $rule:expr;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[allow(
            clippy::doc_markdown,
            rustdoc::bare_urls,
            rustdoc::broken_intra_doc_links,
            rustdoc::invalid_html_tags,
            reason = "users read these texts in a file"
        )]
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $section {
            $($(#[doc = $doc])* pub $key: $kind,)*
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl $section {
            /// Its keys.
            pub const KEYS: &[$crate::key::Key] = &[$(
                $crate::key::Key {
                    name: stringify!($key),
                    rule: $rule,
                    required: false,
                    doc: &[$($doc),*],
                    flag: section!(@flag $($flag, $value)?),
                },
            )*];
        }
    };
    (@flag $flag:literal, $value:literal) => {
        Some($crate::key::Flag { name: $flag, value: $value })
    };
    (@flag) => { None };
}

pub(super) use section;
