//! Search: which manifests and libraries there are, in the order in which they count.

use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::{Code, Options, Phase, Refusal, maps};

/// Where a candidate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// `FLAGOS_BACKEND_FILES` or `FLAGOS_ADD_BACKEND_FILES`.
    Environment,
    /// `${XDG_CONFIG_HOME:-~/.config}/flagos/backends.d`.
    UserConfig,
    /// `/etc/flagos/backends.d`.
    System,
    /// Beside this library or executable.
    Beside,
    /// `/usr/local/share` and `/usr/share`.
    Share,
    /// A folder the caller named.
    Folder,
    /// An in-process table.
    Direct,
}

/// A file to judge.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) origin: Origin,
    pub(super) path: PathBuf,
    /// A bare library, without a manifest.
    pub(super) is_library: bool,
}

/// Folders in search order. Elevated processes have no user folder.
pub(super) fn standard_folders(elevated: bool) -> Vec<(Origin, PathBuf)> {
    let mut folders = Vec::new();
    if !elevated {
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let config =
            absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
        folders.extend(config.map(|c| (Origin::UserConfig, c.join("flagos/backends.d"))));
    }
    folders.push((Origin::System, "/etc/flagos/backends.d".into()));
    if let Some(home) = own_folder() {
        folders.push((Origin::Beside, home.join("flagos/backends.d")));
        folders.extend(
            home.parent()
                .map(|prefix| (Origin::Beside, prefix.join("lib/flagos/backends.d"))),
        );
    }
    folders.push((Origin::Share, "/usr/local/share/flagos/backends.d".into()));
    folders.push((Origin::Share, "/usr/share/flagos/backends.d".into()));
    folders
}

/// Every file to judge, in order; an `Err` is a place that cannot be searched, with the reason.
pub(super) fn find(options: &Options) -> Vec<Result<Found, (Origin, Refusal)>> {
    let mut found = Vec::new();
    let named = options
        .files
        .iter()
        .flatten()
        .map(|p| (p, "FLAGOS_BACKEND_FILES"));
    let added = options
        .add_files
        .iter()
        .map(|p| (p, "FLAGOS_ADD_BACKEND_FILES"));
    for (path, variable) in added.chain(named) {
        named_file(path, variable, &mut found);
    }
    if options.files.is_none() {
        for (origin, folder) in &options.folders {
            list(*origin, folder, false, &mut found);
        }
    }
    // One file reached by two ways is one candidate.
    let mut seen = std::collections::HashSet::new();
    found.retain(|f| match f {
        Ok(f) => seen.insert(f.path.canonicalize().unwrap_or_else(|_| f.path.clone())),
        Err(_) => true,
    });
    found
}

/// Whether `text` matches `pattern`, where `*` is any run of characters and `?` any one.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (p, t) = (pattern.as_bytes(), text.as_bytes());
    let (mut i, mut j, mut retry) = (0, 0, None);
    while j < t.len() {
        if i < p.len() && p[i] == b'*' {
            retry = Some((i, j));
            i += 1;
        } else if i < p.len() && (p[i] == b'?' || p[i] == t[j]) {
            (i, j) = (i + 1, j + 1);
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            (i, j) = (star + 1, from + 1);
        } else {
            return false;
        }
    }
    p[i..].iter().all(|&b| b == b'*')
}

/// A file named by hand. A bare word would mean the current directory, which is never searched.
fn named_file(path: &Path, variable: &str, found: &mut Vec<Result<Found, (Origin, Refusal)>>) {
    let mut refuse = |what: String| {
        found.push(Err((
            Origin::Environment,
            Refusal::new(Phase::Search, Code::NOT_FOUND, path, what),
        )))
    };
    let parts = path.components().count();
    if parts < 2 && matches!(path.components().next(), Some(Component::Normal(_))) {
        return refuse(format!(
            "{variable} gives a bare name, which is looked for nowhere; write an absolute path, or ./{}",
            path.display()
        ));
    }
    let absolute = match std::path::absolute(path) {
        Ok(absolute) => absolute,
        Err(e) => return refuse(format!("{variable}: {e}; write an absolute path")),
    };
    if absolute.is_dir() {
        return list(Origin::Environment, &absolute, true, found);
    }
    let name = absolute.file_name().unwrap_or_default().to_string_lossy();
    let is_library = name.ends_with(".so") || name.contains(".so.");
    if let Err(e) = std::fs::metadata(&absolute)
        && e.kind() == std::io::ErrorKind::NotFound
    {
        return refuse(format!(
            "{variable} names it, but there is no such file; correct the variable, or reinstall the backend"
        ));
    }
    found.push(Ok(Found {
        origin: Origin::Environment,
        path: absolute,
        is_library,
    }));
}

/// Manifests of a folder by file name. A folder that does not exist is no fault unless it was named by hand.
fn list(
    origin: Origin,
    folder: &Path,
    named: bool,
    found: &mut Vec<Result<Found, (Origin, Refusal)>>,
) {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e)
            if !named
                && matches!(
                    e.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
        {
            return;
        }
        Err(e) => {
            let way_out = if e.raw_os_error() == Some(libc::ELOOP) {
                "its symbolic links form a circle: remove them"
            } else {
                "make it readable with chmod a+rx, or remove it"
            };
            let refusal = Refusal::new(
                Phase::Search,
                Code::PERMISSION_DENIED,
                folder,
                format!("the folder cannot be listed: {e}; {way_out}"),
            );
            return found.push(Err((origin, refusal)));
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|x| x == "json"))
        .collect();
    paths.sort();
    found.extend(paths.into_iter().map(|path| {
        Ok(Found {
            origin,
            path,
            is_library: false,
        })
    }));
}

/// Folder of the file this code was loaded from. Taken from the memory map and not from `dladdr`, which gives `argv[0]` for executables.
fn own_folder() -> Option<PathBuf> {
    let here = own_folder as fn() -> Option<PathBuf> as usize;
    let file = maps::file_at(here)
        .map(|m| m.path)
        .or_else(|| std::env::current_exe().ok())?;
    file.parent().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (pattern, text, want) in [
            ("cuda", "cuda", true),
            ("cuda", "cuda2", false),
            ("cu*", "cuda", true),
            ("*", "", true),
            ("*a*b*", "xaxxbx", true),
            ("*a*b", "xbxa", false),
            ("c?a", "cua", true),
            ("c?a", "ca", false),
            ("", "x", false),
            ("**x", "aax", true),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} on {text}");
        }
    }

    #[test]
    fn own_folder_is_where_the_test_program_lies() {
        let exe = std::env::current_exe().unwrap();
        assert_eq!(
            own_folder().unwrap().canonicalize().unwrap(),
            exe.parent().unwrap().canonicalize().unwrap()
        );
    }

    #[test]
    fn elevated_processes_search_no_user_folder_and_nobody_searches_the_current_one() {
        assert!(
            standard_folders(true)
                .iter()
                .all(|(o, _)| *o != Origin::UserConfig)
        );
        assert!(standard_folders(false).iter().all(|(_, p)| p.is_absolute()));
    }
}
