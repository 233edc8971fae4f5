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

/// Maximum length of a name that is compared with known ones, in bytes.
const MAX_COMPARED: usize = 64;

/// Returns a question about the known name that is most like an unknown one, such as
/// "; did you mean `size`?"; empty if none is like it.
pub(crate) fn did_you_mean<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    // No name is nearly as long, and comparing takes the product of both lengths.
    if unknown.len() > MAX_COMPARED {
        return String::new();
    }
    let rated = known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(unknown, name), name));
    let best = rated.max_by(|(one, _), (other, _)| one.total_cmp(other));
    match best {
        Some((score, name)) if score > 0.8 => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_similar_name_is_suggested() {
        let known = ["size", "resize", "dinov2-small", "dinov2-base"];
        let suggested = |unknown| did_you_mean(unknown, known);
        assert_eq!(suggested("sise"), "; did you mean `size`?");
        assert_eq!(suggested("dinov2_base"), "; did you mean `dinov2-base`?");
        assert_eq!(suggested("dinov2smal"), "; did you mean `dinov2-small`?");
        assert_eq!(suggested("color"), "");
        assert_eq!(did_you_mean("size", []), "");
        assert_eq!(suggested(&"size".repeat(1 << 23)), "");
    }
}
