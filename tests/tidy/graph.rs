//! The graph of a crate's files: which file uses items that another file defines.
//!
//! A re-export resolves to the file that defines the item, so importing a sibling through the
//! parent is a use of the sibling. Declaring or re-exporting a child module's items is no use of
//! the child. Code under `#[cfg(test)]` is left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syn::{
    Attribute, Item, ItemUse, Macro, Meta, MetaList, Path, UseTree, VisRestricted, Visibility,
    buffer::{Cursor, TokenBuffer},
    visit::{self, Visit},
};

/// The text of each file by its path below the repository, such as `src/http/mod.rs`.
pub type Sources = BTreeMap<String, String>;

/// The files of one crate.
#[derive(Default)]
pub struct Graph {
    /// For each file, the files that it uses, each with a path that it uses it by.
    pub uses: BTreeMap<String, BTreeMap<String, String>>,
    /// For each file, the names outside of the crate that its paths begin with.
    pub outside: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Reads a crate from its root file, such as `src/lib.rs`.
    pub fn read(sources: &Sources, root: &str) -> Self {
        let mut tree = Tree::default();
        let folder = root.rsplit_once('/').map_or("", |(folder, _)| folder);
        let file = parse(sources, root);
        tree.add(sources, None, root, folder, &file.items);
        let mut graph = Self::default();
        for path in tree.modules.iter().map(|module| &module.file) {
            graph.uses.entry(path.clone()).or_default();
        }
        let mut reader = Reader {
            tree: &tree,
            graph: &mut graph,
            module: 0,
        };
        reader.visit_file(&file);
        for (module, items) in &tree.files {
            reader.module = *module;
            for item in items {
                reader.visit_item(item);
            }
        }
        graph
    }

    /// The shortest circle through each file that is part of one, each circle once.
    pub fn circles(&self) -> Vec<Vec<String>> {
        let mut seen = BTreeSet::new();
        let mut circles: Vec<Vec<String>> = self
            .uses
            .keys()
            .filter_map(|file| self.circle_through(file))
            .filter(|circle| seen.insert(circle.iter().cloned().collect::<BTreeSet<_>>()))
            .collect();
        circles.sort_by_key(Vec::len);
        circles
    }

    fn circle_through(&self, start: &str) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(file) = queue.pop_front() {
            for next in self.uses.get(file)?.keys() {
                if next == start {
                    let mut circle = vec![file.to_owned()];
                    let mut at = file;
                    while at != start {
                        at = came_from[at];
                        circle.push(at.to_owned());
                    }
                    circle.reverse();
                    return Some(circle);
                }
                if !came_from.contains_key(next.as_str()) {
                    came_from.insert(next, file);
                    queue.push_back(next);
                }
            }
        }
        None
    }
}

fn parse(sources: &Sources, path: &str) -> syn::File {
    let text = sources
        .get(path)
        .unwrap_or_else(|| panic!("{path} is missing"));
    syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[derive(Default)]
struct Module {
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// Names of items that this module defines.
    items: BTreeSet<String>,
    /// Names that `use` brings in, with the path of each.
    imports: BTreeMap<String, Vec<String>>,
    /// Paths of `use path::*`.
    globs: Vec<Vec<String>>,
}

/// The modules of a crate; the first is the root.
#[derive(Default)]
struct Tree {
    modules: Vec<Module>,
    /// The items of each module that is a file of its own, apart from the root.
    files: Vec<(usize, Vec<Item>)>,
}

/// What a path leads to.
#[derive(Clone, Copy)]
enum Target {
    /// An item that this module defines.
    Item(usize),
    Module(usize),
    Outside,
}

impl Tree {
    /// Adds a module, and those that its items declare. `folder` holds its children's files.
    fn add(
        &mut self,
        sources: &Sources,
        parent: Option<usize>,
        file: &str,
        folder: &str,
        items: &[Item],
    ) -> usize {
        let module = self.modules.len();
        self.modules.push(Module {
            file: file.to_owned(),
            parent,
            ..Module::default()
        });
        let mut names = Names {
            module: &mut self.modules[module],
        };
        for item in items {
            names.visit_item(item);
        }
        for item in items {
            let Item::Mod(child) = item else { continue };
            if is_test(&child.attrs) {
                continue;
            }
            let name = child.ident.to_string();
            let below = format!("{folder}/{name}");
            let added = match &child.content {
                Some((_, items)) => self.add(sources, Some(module), file, &below, items),
                None => {
                    let paths = [format!("{below}.rs"), format!("{below}/mod.rs")];
                    let path = paths
                        .iter()
                        .find(|path| sources.contains_key(*path))
                        .unwrap_or_else(|| panic!("{file}: no file for `mod {name}`"));
                    let items = parse(sources, path).items;
                    let added = self.add(sources, Some(module), path, &below, &items);
                    self.files.push((added, items));
                    added
                }
            };
            self.modules[module].children.insert(name, added);
        }
        module
    }

    fn resolve(&self, at: usize, path: &[String]) -> Target {
        self.resolve_from(at, path, &mut BTreeSet::new())
    }

    /// `open` holds the imports that are being followed.
    fn resolve_from(
        &self,
        at: usize,
        path: &[String],
        open: &mut BTreeSet<(usize, String)>,
    ) -> Target {
        let mut module = at;
        let mut rest = path;
        let mut relative = false;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" => module = 0,
                "self" => {}
                "super" => module = self.modules[module].parent.unwrap_or(0),
                _ => break,
            }
            relative = true;
            rest = after;
        }
        if rest.is_empty() {
            return if relative {
                Target::Module(module)
            } else {
                Target::Outside
            };
        }
        self.member(module, rest, open).unwrap_or(Target::Outside)
    }

    /// What a path leads to whose first name stands in this module.
    fn member(
        &self,
        at: usize,
        path: &[String],
        open: &mut BTreeSet<(usize, String)>,
    ) -> Option<Target> {
        let (name, rest) = path.split_first()?;
        let module = &self.modules[at];
        let child = module.children.get(name);
        if module.items.contains(name) && (rest.is_empty() || child.is_none()) {
            return Some(Target::Item(at));
        }
        if let Some(child) = child {
            return if rest.is_empty() {
                Some(Target::Module(*child))
            } else {
                self.member(*child, rest, open)
            };
        }
        let imported = module
            .imports
            .get(name)
            .into_iter()
            .map(|import| (import, rest));
        let globs = module.globs.iter().map(|glob| (glob, path));
        for (import, rest) in imported.chain(globs) {
            let key = (at, import.join("::"));
            if !open.insert(key.clone()) {
                continue;
            }
            let found = match self.resolve_from(at, import, open) {
                Target::Module(module) if !rest.is_empty() => self.member(module, rest, open),
                Target::Item(_) | Target::Outside if std::ptr::eq(rest, path) => None,
                target => Some(target),
            };
            open.remove(&key);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn is_below(&self, mut module: usize, ancestor: usize) -> bool {
        while let Some(parent) = self.modules[module].parent {
            if parent == ancestor {
                return true;
            }
            module = parent;
        }
        false
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        matches!(&attribute.meta, Meta::List(list)
            if list.path.is_ident("cfg") && list.tokens.to_string() == "test")
    })
}

/// Calls back with each path of a `use`, the name that it brings in, or none for `*`.
fn each_import(
    tree: &UseTree,
    path: &mut Vec<String>,
    found: &mut dyn FnMut(&[String], Option<String>),
) {
    match tree {
        UseTree::Path(step) => {
            path.push(step.ident.to_string());
            each_import(&step.tree, path, found);
            path.pop();
        }
        UseTree::Name(name) if name.ident == "self" => found(path, path.last().cloned()),
        UseTree::Name(name) => {
            path.push(name.ident.to_string());
            found(path, path.last().cloned());
            path.pop();
        }
        UseTree::Rename(rename) if rename.ident == "self" => {
            found(path, Some(rename.rename.to_string()));
        }
        UseTree::Rename(rename) => {
            path.push(rename.ident.to_string());
            found(path, Some(rename.rename.to_string()));
            path.pop();
        }
        UseTree::Glob(_) => found(path, None),
        UseTree::Group(group) => {
            for tree in &group.items {
                each_import(tree, path, found);
            }
        }
    }
}

/// Gathers the names in a module: its items, and what `use` brings in, also inside of functions.
struct Names<'a> {
    module: &'a mut Module,
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let name = match item {
            Item::Const(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Macro(item) => item.ident.as_ref(),
            Item::Static(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            Item::Mod(_) => return,
            _ => None,
        };
        self.module.items.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        each_import(&item.tree, &mut Vec::new(), &mut |path, name| match name {
            Some(name) if name != "_" => {
                // `use ort;` would only lead back to itself.
                if path != [name.as_str()] {
                    self.module.imports.insert(name, path.to_owned());
                }
            }
            Some(_) => {}
            None => self.module.globs.push(path.to_owned()),
        });
    }
}

/// Finds the uses of other files in a module's items.
struct Reader<'a> {
    tree: &'a Tree,
    graph: &'a mut Graph,
    module: usize,
}

impl Reader<'_> {
    fn found(&mut self, path: &[String], is_export: bool) {
        let file = &self.tree.modules[self.module].file;
        match self.tree.resolve(self.module, path) {
            Target::Item(module) => {
                let to = &self.tree.modules[module].file;
                let own_child = is_export && self.tree.is_below(module, self.module);
                if to != file && !own_child {
                    let uses = self.graph.uses.entry(file.clone()).or_default();
                    uses.entry(to.clone()).or_insert_with(|| path.join("::"));
                }
            }
            Target::Module(_) => {}
            Target::Outside => {
                let outside = self.graph.outside.entry(file.clone()).or_default();
                outside.extend(path.first().cloned());
            }
        }
    }

    /// Finds paths in the tokens of a macro or an attribute, where nothing says what is a path.
    fn tokens(&mut self, mut at: Cursor<'_>, strings: bool) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        let mut after_dot = false;
        while !at.eof() {
            if let Some((name, next)) = at.ident() {
                if colons != 2 {
                    self.end_of_path(&mut path);
                }
                if !after_dot {
                    path.push(name.to_string());
                }
                (at, colons, after_dot) = (next, 0, false);
            } else if let Some((punct, next)) = at.punct() {
                colons = if punct.as_char() == ':' {
                    colons + 1
                } else {
                    0
                };
                after_dot = punct.as_char() == '.';
                if colons == 0 {
                    self.end_of_path(&mut path);
                }
                at = next;
            } else {
                self.end_of_path(&mut path);
                (colons, after_dot) = (0, false);
                if let Some((inner, _, _, next)) = at.any_group() {
                    self.tokens(inner, strings);
                    at = next;
                } else if let Some((literal, next)) = at.literal() {
                    if strings
                        && let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string())
                        && let Ok(path) = text.parse::<Path>()
                    {
                        self.visit_path(&path);
                    }
                    at = next;
                } else if let Some((_, next)) = at.token_tree() {
                    at = next;
                }
            }
        }
        self.end_of_path(&mut path);
    }

    fn end_of_path(&mut self, path: &mut Vec<String>) {
        if !path.is_empty() {
            self.found(path, false);
            path.clear();
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let Item::Mod(child) = item else {
            return visit::visit_item(self, item);
        };
        let Some(inner) = self.tree.modules[self.module]
            .children
            .get(&child.ident.to_string())
        else {
            return;
        };
        if child.content.is_some() {
            let outer = std::mem::replace(&mut self.module, *inner);
            visit::visit_item_mod(self, child);
            self.module = outer;
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_export = !matches!(item.vis, Visibility::Inherited);
        each_import(&item.tree, &mut Vec::new(), &mut |path, _| {
            self.found(path, is_export);
        });
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let names: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        self.found(&names, false);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(TokenBuffer::new2(call.tokens.clone()).begin(), false);
    }

    fn visit_meta_list(&mut self, list: &'ast MetaList) {
        self.visit_path(&list.path);
        self.tokens(TokenBuffer::new2(list.tokens.clone()).begin(), true);
    }

    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}
}
