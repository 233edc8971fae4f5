//! Names in paths.

use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

use crate::{
    error::Error,
    http::{AppState, Rejection, Result},
};

/// The checked value of `{id}` or `{name}` in a path.
pub(crate) struct NamePath<T>(pub(crate) T);

impl<T: FromStr<Err = Error>> FromRequestParts<AppState> for NamePath<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let Ok(Path(text)) = Path::<String>::from_request_parts(parts, state).await else {
            let detail = "the path is not valid: percent-decoded, it must be UTF-8";
            return Err(Error::malformed(detail).into());
        };
        Ok(Self(text.parse()?))
    }
}
