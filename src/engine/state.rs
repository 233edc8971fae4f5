//! State of an engine.

use std::sync::Arc;

use super::EnginePlan;
use crate::error::{Error, Kind, Result};

/// State of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// The sessions are being created and warmed up.
    Loading,
    /// An inference has succeeded.
    Ready(Arc<EnginePlan>),
    /// The model cannot run, for this reason.
    Failed(String),
}

impl EngineState {
    /// Returns the plan of an engine that is ready.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] in any other state.
    pub fn require_ready(self) -> Result<Arc<EnginePlan>> {
        let detail = match self {
            Self::Ready(plan) => return Ok(plan),
            Self::Loading => "the model is still loading; try again in a moment".to_owned(),
            Self::Failed(reason) => format!("the model cannot run: {reason}"),
        };
        Err(Error::new(Kind::Unavailable, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_is_not_ready_says_why() {
        for (state, detail) in [
            (
                EngineState::Loading,
                "the model is still loading; try again in a moment",
            ),
            (
                EngineState::Failed("no CUDA".to_owned()),
                "the model cannot run: no CUDA",
            ),
        ] {
            let error = state.require_ready().unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable);
            assert_eq!(error.detail(), detail);
        }
    }
}
