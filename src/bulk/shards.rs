//! The state of the shards of a run, by the files next to its output.

use std::collections::BTreeMap;

use super::{manifest::Manifest, output::Output};
use crate::{
    error::{Error, Kind, Result},
    sources::Shard,
};

/// How far a shard is.
#[derive(Debug)]
pub struct ShardState {
    /// The shard.
    pub shard: Shard,
    /// Its manifest, if it is finished.
    pub manifest: Option<Manifest>,
    /// Whether it has results, but no manifest.
    pub is_begun: bool,
}

/// Finds the shards of a run: as many as the files next to its output say.
///
/// # Errors
/// [`Kind::NotFound`] without a shard; [`Kind::Conflict`] for shards of two runs.
pub async fn shard_states(output: &Output) -> Result<Vec<ShardState>> {
    let names = output.place.siblings().await?;
    let mut states: BTreeMap<u64, ShardState> = BTreeMap::new();
    let mut count = None;
    let partial = format!(".{}.partial", output.place.extension());
    for name in names {
        let begun = name
            .strip_suffix(&partial)
            .map(|name| format!("{name}.json"));
        let is_begun = begun.is_some();
        let manifest = begun.unwrap_or_else(|| name.clone());
        let Some(shard) = output.shard_of_manifest(&manifest) else {
            continue;
        };
        let count = *count.get_or_insert(shard.count);
        if shard.count != count {
            let detail = format!(
                "{output} has shards of {count} and shards of {}; delete those of one of the runs",
                shard.count
            );
            return Err(Error::new(Kind::Conflict, detail));
        }
        let state = states.entry(shard.index).or_insert(ShardState {
            shard,
            manifest: None,
            is_begun: false,
        });
        state.is_begun |= is_begun;
        if !is_begun {
            state.manifest = Manifest::read(&output.manifest(shard)?).await?;
        }
    }
    let Some(count) = count else {
        let stem = output.stem();
        let detail = format!(
            "there are no shards of {output}; expected files such as {stem}-00000-of-00008.json"
        );
        return Err(Error::new(Kind::NotFound, detail));
    };
    Ok((0..count)
        .map(|index| {
            states.remove(&index).unwrap_or(ShardState {
                shard: Shard { index, count },
                manifest: None,
                is_begun: false,
            })
        })
        .collect())
}
