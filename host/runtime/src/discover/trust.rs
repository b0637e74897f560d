//! Trust: whose files may become code of this process.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::{Code, Phase, Refusal};

/// Whose files may be loaded (`FLAGOS_TRUST`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// Only root's.
    System,
    /// Root's and the user's own.
    #[default]
    User,
    /// Anybody's: nothing is checked.
    Any,
}

impl Trust {
    /// The level of a word.
    pub fn from_name(text: &str) -> Option<Trust> {
        match text {
            "system" => Some(Trust::System),
            "user" => Some(Trust::User),
            "any" => Some(Trust::Any),
            _ => None,
        }
    }
}

/// Checks a file and every folder and link on the way to it: each must belong to root (or, at [`Trust::User`], to `user`) and not be writable
/// by group or others. Folders with the sticky bit may be writable, since others cannot replace what lies in them; so may the group of root.
///
/// Links are followed one by one, so a link that somebody else could repoint is found too.
pub fn check(path: &Path, trust: Trust, user: u32) -> Result<(), Refusal> {
    if trust == Trust::Any {
        return Ok(());
    }
    walk(path, &mut |place, meta| {
        judge(path, place, meta, trust, user)
    })
}

fn judge(
    path: &Path,
    place: &Path,
    meta: &Metadata,
    trust: Trust,
    user: u32,
) -> Result<(), Refusal> {
    let refuse = |what: String| {
        Err(Refusal::new(
            Phase::Trust,
            Code::PERMISSION_DENIED,
            path,
            what,
        ))
    };
    let place_text = place.display();
    let owner = meta.uid();
    if owner != 0 && (trust == Trust::System || owner != user) {
        let who = if trust == Trust::System {
            "root".to_owned()
        } else {
            format!("root or you (user {user})")
        };
        return refuse(format!(
            "{place_text} belongs to user {owner}, not to {who}; chown it, or set FLAGOS_TRUST={} if you mean it",
            if trust == Trust::System {
                "user"
            } else {
                "any"
            }
        ));
    }
    // The mode of a link means nothing.
    if meta.is_symlink() {
        return Ok(());
    }
    let mode = meta.mode() & 0o7777;
    let sticky_folder = meta.is_dir() && mode & 0o1000 != 0;
    let by_group = mode & 0o020 != 0 && meta.gid() != 0;
    let by_others = mode & 0o002 != 0;
    if !sticky_folder && (by_group || by_others) {
        let (who, fix) = match (by_group, by_others) {
            (true, true) => ("its group and others", "go-w"),
            (true, false) => ("its group", "g-w"),
            _ => ("others", "o-w"),
        };
        return refuse(format!(
            "{place_text} is writable by {who} (mode {mode:04o}), who could put code into this process; run: chmod {fix} '{place_text}'"
        ));
    }
    Ok(())
}

/// Calls `visit` on each folder, link and file that resolving `path` touches, from the root on.
fn walk(
    path: &Path,
    visit: &mut dyn FnMut(&Path, &Metadata) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let unresolvable = |place: &Path, what: String| {
        Refusal::new(
            Phase::Trust,
            Code::NOT_FOUND,
            path,
            format!("{}: {what}", place.display()),
        )
    };
    let absolute = std::path::absolute(path)
        .map_err(|e| unresolvable(path, format!("{e}; give an absolute path")))?;
    let mut rest: VecDeque<OsString> = parts(&absolute);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    visit(
        &at,
        &std::fs::symlink_metadata(&at).map_err(|e| unresolvable(Path::new("/"), e.to_string()))?,
    )?;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let meta = std::fs::symlink_metadata(&next).map_err(|e| {
            unresolvable(
                &next,
                format!("{e}; correct the path, or reinstall the backend"),
            )
        })?;
        visit(&next, &meta)?;
        if !meta.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if links > 40 {
            return Err(unresolvable(
                &next,
                "its symbolic links form a circle; point them at a file".into(),
            ));
        }
        let target = std::fs::read_link(&next)
            .map_err(|e| unresolvable(&next, format!("the link cannot be read: {e}; remove it")))?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for part in parts(&target).into_iter().rev() {
            rest.push_front(part);
        }
    }
    Ok(())
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}
