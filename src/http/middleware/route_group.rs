//! What each route requires: its role, its time limit and its log level.
//!
//! The router registers every route in a [`RouteGroup`], so a route without one cannot be written.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
};

use super::access::Role;

/// Properties that a route shares with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteGroup {
    /// Least role of an API key; `None` for routes that need no key.
    pub(crate) role: Option<Role>,
    /// Whether `--request-timeout` applies.
    pub(crate) is_timed: bool,
    /// Whether requests are logged only at the debug level.
    pub(crate) is_quiet: bool,
}

impl RouteGroup {
    pub(crate) const PUBLIC: Self = Self::of(None);
    pub(crate) const READ: Self = Self::of(Some(Role::Read));
    pub(crate) const WRITE: Self = Self::of(Some(Role::Write));
    pub(crate) const ADMIN: Self = Self::of(Some(Role::Admin));

    const fn of(role: Option<Role>) -> Self {
        Self {
            role,
            is_timed: true,
            is_quiet: false,
        }
    }

    /// For operations that limit their own time.
    pub(crate) const fn untimed(mut self) -> Self {
        self.is_timed = false;
        self
    }

    /// For routes that monitoring polls every few seconds.
    pub(crate) const fn quiet(mut self) -> Self {
        self.is_quiet = true;
        self
    }
}

/// The group of every registered route.
#[derive(Debug, Clone, Default)]
pub(crate) struct RouteTable {
    by_path: HashMap<String, HashMap<Method, RouteGroup>>,
    by_prefix: Vec<(&'static str, RouteGroup)>,
}

impl RouteTable {
    pub(crate) fn insert(&mut self, path: &str, method: Method, group: RouteGroup) {
        let methods = self.by_path.entry(path.to_owned()).or_default();
        methods.insert(method, group);
    }

    /// Covers all routes whose path begins with `prefix`.
    pub(crate) fn insert_prefix(&mut self, prefix: &'static str, group: RouteGroup) {
        self.by_prefix.push((prefix, group));
    }

    /// Returns the group of a request that matched the route `path`.
    ///
    /// A method that the route lacks gets the least role of the route if it is safe, and the
    /// greatest if it is not: the answer is 405 for those who may know.
    fn group(&self, path: &str, method: &Method) -> RouteGroup {
        let Some(methods) = self.by_path.get(path) else {
            let prefix = self
                .by_prefix
                .iter()
                .find(|(prefix, _)| path.starts_with(prefix));
            return prefix.map_or(RouteGroup::ADMIN, |&(_, group)| group);
        };
        let method = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        if let Some(group) = methods.get(method) {
            return *group;
        }
        let groups = methods.values().copied();
        let group = match *method {
            Method::GET | Method::OPTIONS => groups.min_by_key(|group| group.role),
            _ => groups.max_by_key(|group| group.role),
        };
        group.unwrap_or(RouteGroup::ADMIN)
    }
}

/// Attaches the group of the matched route to the request, for the other layers.
pub(crate) async fn attach(State(table): State<Arc<RouteTable>>, mut request: Request) -> Request {
    if let Some(path) = request.extensions().get::<MatchedPath>() {
        let group = table.group(path.as_str(), request.method());
        request.extensions_mut().insert(group);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_and_paths_are_not_open() {
        let mut table = RouteTable::default();
        table.insert("/item", Method::GET, RouteGroup::READ);
        table.insert("/item", Method::PUT, RouteGroup::WRITE);
        table.insert("/load", Method::POST, RouteGroup::ADMIN.untimed());
        table.insert_prefix("/docs", RouteGroup::PUBLIC);
        for (path, method, group) in [
            ("/item", Method::GET, RouteGroup::READ),
            ("/item", Method::HEAD, RouteGroup::READ),
            ("/item", Method::OPTIONS, RouteGroup::READ),
            ("/item", Method::PUT, RouteGroup::WRITE),
            ("/item", Method::PATCH, RouteGroup::WRITE),
            ("/load", Method::GET, RouteGroup::ADMIN.untimed()),
            ("/docs/index.html", Method::GET, RouteGroup::PUBLIC),
            ("/forgotten", Method::GET, RouteGroup::ADMIN),
        ] {
            assert_eq!(table.group(path, &method), group, "{method} {path}");
        }
    }
}
