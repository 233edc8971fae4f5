//! Enums whose variants have one spelling everywhere: in options, in JSON, on the command line and
//! in messages. Counts of things in messages.

use std::{collections::BTreeSet, fmt::Display};

/// Defines a `Copy` enum with `Display`, `FromStr`, `VARIANTS`, `Serialize` and `Deserialize`, all
/// of which spell a variant in `snake_case`.
macro_rules! option_enum {
    ($(#[$attribute:meta])* $visibility:vis enum $name:ident { $($variants:tt)* }) => {
        $(#[$attribute])*
        #[derive(
            Debug,
            Clone,
            Copy,
            PartialEq,
            Eq,
            Hash,
            serde::Serialize,
            serde::Deserialize,
            strum::Display,
            strum::EnumString,
            strum::VariantNames,
        )]
        #[serde(rename_all = "snake_case")]
        #[strum(serialize_all = "snake_case")]
        $visibility enum $name { $($variants)* }
    };
}

pub(crate) use option_enum;

/// Returns the first name that is in a list twice.
pub(crate) fn repeated(names: &[String]) -> Option<&str> {
    let mut seen = BTreeSet::new();
    let mut names = names.iter().map(String::as_str);
    names.find(|name| !seen.insert(*name))
}

/// Returns names in quotes, separated by commas.
pub(crate) fn quoted(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let names = names.into_iter().map(|name| format!("{:?}", name.as_ref()));
    names.collect::<Vec<_>>().join(", ")
}

/// Returns a count with its noun, such as "1 image", "2 images" and "2 patches".
pub(crate) fn plural<T: Display + PartialEq + From<u8>>(count: T, noun: &str) -> String {
    let ending = match noun {
        _ if count == T::from(1) => "",
        _ if noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{count} {noun}{ending}")
}
