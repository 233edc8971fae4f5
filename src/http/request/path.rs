//! Names in paths.

use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

use crate::{
    error::{Error, Kind},
    http::{AppState, Rejection, Result},
};

/// The checked value of `{id}` or `{name}` in a path.
pub(crate) struct NamePath<T>(pub(crate) T);

impl<T: FromStr<Err = Error>> FromRequestParts<AppState> for NamePath<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| {
                let detail = "the path is not valid: percent-decoded, it must be UTF-8";
                Error::new(Kind::Malformed, detail)
            })?;
        Ok(Self(text.parse()?))
    }
}
