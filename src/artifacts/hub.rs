//! The model hub: its address, the access token, and the cache of Hugging Face's own programs.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

use ureq::http::Uri;

use super::weight_file::shard_names;

/// Address of the hub unless a setting says otherwise.
const DEFAULT_ADDRESS: &str = "https://huggingface.co";

/// A model hub, and what a user has stored for it.
#[derive(Debug, Clone)]
pub struct Hub {
    address: String,
    token: Option<Token>,
    cache: Option<PathBuf>,
    is_offline: bool,
}

/// An access token, which no message shows.
#[derive(Clone)]
struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Hub {
    /// Uses the hub at `address`, without a token or a cache.
    pub fn at(address: &str) -> Self {
        Self {
            address: address.trim_end_matches('/').to_owned(),
            token: None,
            cache: None,
            is_offline: false,
        }
    }

    /// Uses the environment variables of Hugging Face's own programs: `HF_ENDPOINT` unless there is
    /// an `address`, `HF_TOKEN` or the token that `hf auth login` stored, `HF_HOME` and
    /// `HF_HUB_CACHE` for files that are present, and `HF_HUB_OFFLINE`.
    pub fn from_environment(address: Option<&str>) -> Self {
        let endpoint = variable("HF_ENDPOINT");
        let address = address.filter(|address| !address.is_empty());
        let address = address.or(endpoint.as_deref()).unwrap_or(DEFAULT_ADDRESS);
        let home = variable("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            Some(
                cache
                    .or_else(|| Some(env::home_dir()?.join(".cache")))?
                    .join("huggingface"),
            )
        });
        let stored = || {
            let path = variable("HF_TOKEN_PATH").map(PathBuf::from);
            fs::read_to_string(path.or_else(|| Some(home.as_ref()?.join("token")))?).ok()
        };
        let token = variable("HF_TOKEN").or_else(stored);
        let token = token.map(|token| token.trim().to_owned());
        Self {
            token: token.filter(|token| !token.is_empty()).map(Token),
            cache: variable("HF_HUB_CACHE")
                .map(PathBuf::from)
                .or_else(|| Some(home.as_ref()?.join("hub"))),
            is_offline: variable("HF_HUB_OFFLINE").is_some_and(|value| {
                matches!(value.to_lowercase().as_str(), "1" | "on" | "yes" | "true")
            }),
            ..Self::at(address)
        }
    }

    /// Returns whether `HF_HUB_OFFLINE` forbids downloads.
    pub(super) fn is_offline(&self) -> bool {
        self.is_offline
    }

    /// Fills the hub's address into the URL of a source.
    pub(super) fn url(&self, template: &str) -> String {
        template.replace("{hub}", &self.address)
    }

    /// Returns the file of a source that Hugging Face's programs have downloaded:
    /// `models--OWNER--NAME/snapshots/COMMIT/FILE`.
    pub(super) fn cached(&self, template: &str) -> Option<PathBuf> {
        let (repository, file) = template.strip_prefix("{hub}/")?.split_once("/resolve/")?;
        let (revision, file) = file.split_once('/')?;
        let folder = format!("models--{}", repository.replace('/', "--"));
        let folder = self.cache.as_ref()?.join(folder);
        let commit = fs::read_to_string(folder.join("refs").join(revision));
        let commit = commit.unwrap_or_else(|_| revision.to_owned());
        let path = folder.join("snapshots").join(commit.trim()).join(file);
        is_complete(&path).then_some(path)
    }

    /// Returns the value of the `Authorization` header for a request to `uri`: the token goes to
    /// the hub's host, and to no other.
    pub(super) fn authorization(&self, uri: &Uri) -> Option<String> {
        let Token(token) = self.token.as_ref()?;
        self.is_at(uri).then(|| format!("Bearer {token}"))
    }

    /// Returns whether `uri` is one of this hub.
    fn is_at(&self, uri: &Uri) -> bool {
        let place = |uri: &Uri| {
            let scheme = uri.scheme_str()?.to_lowercase();
            let default = if scheme == "https" { 443 } else { 80 };
            let port = uri.port_u16().unwrap_or(default);
            Some((scheme, uri.host()?.to_lowercase(), port))
        };
        let own = self.address.parse::<Uri>();
        own.is_ok_and(|own| place(&own).is_some() && place(&own) == place(uri))
    }

    /// Says what to do where the server at `uri` denies access to the file at `url`.
    pub(super) fn access_advice(&self, url: &str, uri: &Uri) -> String {
        let page = url.split_once("/resolve/").map(|(page, _)| page);
        match (page, &self.token) {
            (Some(page), None) if self.is_at(uri) => format!(
                "the file is not public; ask for access at {page}, and set HF_TOKEN to a token of \
                 your account"
            ),
            (Some(page), Some(_)) if self.is_at(uri) => format!(
                "the token in HF_TOKEN has no access to the file; ask for access at {page}, or use \
                 a token of an account that has it"
            ),
            _ => "the file is not public".to_owned(),
        }
    }
}

impl From<&str> for Hub {
    fn from(address: &str) -> Self {
        Self::at(address)
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns whether a file exists and, if it lists shards, these do, too.
fn is_complete(path: &Path) -> bool {
    let has_shards = || {
        shard_names(path).is_ok_and(|shards| {
            shards
                .iter()
                .all(|shard| path.with_file_name(shard).exists())
        })
    };
    path.exists() && (path.extension().is_none_or(|ending| ending != "json") || has_shards())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_token(address: &str) -> Hub {
        Hub {
            token: Some(Token("secret".to_owned())),
            ..Hub::at(address)
        }
    }

    #[test]
    fn the_token_goes_to_the_hub_only() {
        let hub = with_token("https://hub.example/");
        for (url, is_sent) in [
            ("https://hub.example/a", true),
            ("https://HUB.example:443/b", true),
            ("http://hub.example/a", false),
            ("https://hub.example:8443/a", false),
            ("https://cdn.hub.example/a", false),
            ("https://hub.example.org/a", false),
        ] {
            let header = hub.authorization(&Uri::from_static(url));
            assert_eq!(header.is_some(), is_sent, "{url}");
        }
        assert!(!format!("{hub:?}").contains("secret"));
    }

    #[test]
    fn a_denied_file_names_its_page() {
        let url = "https://hub.example/meta/x/resolve/main/model.safetensors";
        let advice = |hub: Hub, at| hub.access_advice(url, &Uri::from_static(at));
        let at_hub = advice(Hub::at("https://hub.example"), url);
        assert!(
            at_hub.contains("ask for access at https://hub.example/meta/x, and set HF_TOKEN"),
            "{at_hub}"
        );
        let with_token = advice(with_token("https://hub.example"), url);
        assert!(
            with_token.contains("the token in HF_TOKEN has no access"),
            "{with_token}"
        );
        let elsewhere = advice(Hub::at("https://hub.example"), "https://cdn.example/x");
        assert_eq!(elsewhere, "the file is not public");
    }
}
