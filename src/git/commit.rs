//! Making a commit from a tree and changes to it, in the object database only: no index, no checkout. The same
//! [`Update`] gives the same commit id.

use std::collections::BTreeMap;

use git2::{ObjectType, Oid, Repository, Signature, Time, Tree};

use super::snapshot::checked_name;
use crate::domain::Blob;
use crate::ports::{GitError, TreeChange, Update};

const FILE: i32 = 0o100_644;
const EXECUTABLE: i32 = 0o100_755;
const FOLDER: i32 = 0o040_000;

/// Why a commit cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommitFault {
    /// The update itself makes no sense.
    #[error("{0}")]
    Update(String),
    /// The object database failed.
    #[error("{0}")]
    Git(#[from] git2::Error),
}

impl From<CommitFault> for GitError {
    fn from(fault: CommitFault) -> Self {
        match fault {
            CommitFault::Update(text) => Self::Unsupported(format!("making a commit: {text}")),
            CommitFault::Git(error) => {
                Self::Unavailable { doing: "making a commit".to_owned(), message: error.message().to_owned() }
            }
        }
    }
}

/// Changes below one folder.
#[derive(Default)]
struct Node<'a> {
    change: Option<&'a Option<Blob>>,
    children: BTreeMap<&'a str, Self>,
}

/// Writes the commit that an update describes, without pointing any ref at it.
pub(super) fn make(
    repository: &Repository,
    parent: Option<&git2::Commit<'_>>,
    update: &Update,
) -> Result<Oid, CommitFault> {
    let base = parent.map(git2::Commit::tree).transpose()?;
    let root = arranged(&update.changes)?;
    let tree = match folder(repository, base.as_ref(), &root, "")? {
        Some(id) => id,
        // A repository may become empty, and an empty tree is a tree.
        None => repository.treebuilder(None)?.write()?,
    };
    let author = Signature::new(&update.author.name, &update.author.email, &Time::new(update.time, 0))
        .map_err(|error| CommitFault::Update(format!("the author cannot be written: {}", error.message())))?;
    let parents: Vec<_> = parent.into_iter().collect();
    Ok(repository.commit(None, &author, &author, &update.message, &repository.find_tree(tree)?, &parents)?)
}

fn arranged(changes: &[TreeChange]) -> Result<Node<'_>, CommitFault> {
    let mut root = Node::default();
    for change in changes {
        let mut node = &mut root;
        for name in change.path.split('/') {
            let name = checked_name(name.as_bytes())
                .map_err(|why| CommitFault::Update(format!("{:?} cannot be written: {why}", change.path)))?;
            node = node.children.entry(name).or_default();
        }
        if node.change.replace(&change.content).is_some() {
            return Err(CommitFault::Update(format!("{:?} is changed twice", change.path)));
        }
    }
    Ok(root)
}

/// Writes one folder; `None` when nothing is left in it.
fn folder(
    repository: &Repository,
    base: Option<&Tree<'_>>,
    node: &Node<'_>,
    path: &str,
) -> Result<Option<Oid>, CommitFault> {
    let mut builder = repository.treebuilder(base)?;
    for (name, child) in &node.children {
        let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}/{name}") };
        let (mode, id) = builder.get(name)?.map_or((0, None), |entry| (entry.filemode(), Some(entry.id())));
        match entry(repository, mode, id, child, &path)? {
            Some((id, mode)) => drop(builder.insert(name, id, mode)?),
            None if id.is_some() => builder.remove(name)?,
            None => {}
        }
    }
    if builder.is_empty() { Ok(None) } else { Ok(Some(builder.write()?)) }
}

/// What one name of a folder becomes: its object and mode, or nothing.
fn entry(
    repository: &Repository,
    mode: i32,
    id: Option<Oid>,
    node: &Node<'_>,
    path: &str,
) -> Result<Option<(Oid, i32)>, CommitFault> {
    let is_folder = mode == FOLDER;
    let kept = id.map(|id| (id, mode));
    // A file that makes room for a folder is removed by the same update.
    let below = if node.children.is_empty() {
        kept.filter(|_| is_folder)
    } else if !is_folder && id.is_some() && node.change != Some(&None) {
        return Err(CommitFault::Update(format!("{path:?} is a file, not a folder")));
    } else {
        let base = id.filter(|_| is_folder).map(|id| repository.find_tree(id)).transpose()?;
        folder(repository, base.as_ref(), node, path)?.map(|id| (id, FOLDER))
    };
    match node.change {
        None if node.children.is_empty() => Ok(kept),
        None => Ok(below),
        Some(None) => Ok(below),
        Some(Some(_)) if below.is_some() => Err(CommitFault::Update(format!("{path:?} is a folder, not a file"))),
        Some(Some(content)) => {
            let mode = if mode == EXECUTABLE { EXECUTABLE } else { FILE };
            Ok(Some((repository.odb()?.write(ObjectType::Blob, content)?, mode)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::{Blob, Repository, TreeChange, Update, make};
    use crate::ports::Identity;

    /// Files of a tree, read back.
    fn files(repository: &Repository, commit: git2::Oid) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let tree = repository.find_commit(commit).and_then(|commit| commit.tree()).expect("tree");
        tree.walk(git2::TreeWalkMode::PreOrder, |folder, entry| {
            if entry.kind() == Some(git2::ObjectType::Blob) {
                let blob = repository.find_blob(entry.id()).expect("blob");
                files.insert(format!("{folder}{}", entry.name().expect("name")), blob.content().to_vec());
            }
            git2::TreeWalkResult::Ok
        })
        .expect("walk");
        files
    }

    fn update(changes: &BTreeMap<String, Option<String>>, message: &str, time: i64) -> Update {
        let blob = |text: &String| Blob::from(text.as_bytes());
        let changes = changes
            .iter()
            .map(|(path, text)| TreeChange { path: path.clone(), content: text.as_ref().map(blob) })
            .collect();
        Update {
            reference: "refs/heads/main".to_owned(),
            expected: None,
            parent: None,
            changes,
            message: message.to_owned(),
            author: Identity { name: "serin".to_owned(), email: "serin@example.com".to_owned() },
            time,
            force: false,
        }
    }

    /// Paths such that none is a folder of another one.
    fn changes() -> impl Strategy<Value = BTreeMap<String, Option<String>>> {
        proptest::collection::btree_map(
            "[a-c]{1,2}(/[a-c]{1,2}){0,2}",
            proptest::option::weighted(0.7, "[a-z\n]{0,9}"),
            0..8,
        )
        .prop_map(|mut changes| {
            let names: Vec<String> = changes.keys().cloned().collect();
            changes.retain(|path, _| !names.iter().any(|name| path.starts_with(&format!("{name}/"))));
            changes
        })
    }

    /// A replay after a crash must find its own commit: the same update gives the same id, in any repository and by
    /// any order of its changes. And the tree is what a map would be after the same changes.
    #[test]
    fn the_same_update_is_the_same_commit() {
        let folders = [tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder")];
        let repositories = folders.each_ref().map(|folder| Repository::init_bare(folder.path()).expect("repository"));
        let cases = (changes(), changes(), "[A-Z][a-z ]{0,20}", 0_i64..4_000_000_000);
        let mut runner = TestRunner::new(ProptestConfig { cases: 24, ..ProptestConfig::default() });
        let outcome = runner.run(&cases, |(before, after, message, time)| {
            let first = update(&before, "first", 1);
            let mut second = update(&after, &message, time);
            let want = applied(&before, &after);
            let mut ids = Vec::new();
            for repository in &repositories {
                let parent = make(repository, None, &first).expect("first");
                let parent = repository.find_commit(parent).expect("parent");
                let made = make(repository, Some(&parent), &second);
                prop_assert_eq!(made.is_ok(), want.is_some(), "{:?}", made);
                ids.push(made.as_ref().map_or_else(ToString::to_string, ToString::to_string));
                if let (Ok(id), Some(want)) = (made, &want) {
                    prop_assert_eq!(&files(repository, id), want);
                }
                second.changes.reverse();
            }
            prop_assert_eq!(&ids[0], &ids[1]);
            Ok(())
        });
        outcome.expect("the property holds");
    }

    type Changes = BTreeMap<String, Option<String>>;

    /// The files after both sets of changes; `None` when a file would stand where a folder is, or the other way round.
    fn applied(before: &Changes, after: &Changes) -> Option<BTreeMap<String, Vec<u8>>> {
        let mut files = BTreeMap::new();
        for (path, text) in before.iter().chain(after) {
            match text {
                Some(text) => drop(files.insert(path.clone(), text.clone().into_bytes())),
                None => drop(files.remove(path)),
            }
        }
        let old: Vec<&String> = before.iter().filter(|(_, text)| text.is_some()).map(|(path, _)| path).collect();
        let inside = |path: &str, folder: &str| path.starts_with(&format!("{folder}/"));
        // Nothing can be changed inside a file that stays; removing a file that is a folder is a change of nothing.
        let blocked = old.iter().any(|old| {
            let stays = after.get(*old) != Some(&None);
            after.keys().any(|new| inside(new, old) && stays)
        });
        let twice = files.keys().any(|path| files.keys().any(|other| inside(other, path)));
        (!blocked && !twice).then_some(files)
    }
}
