//! Exceptions of a backend: its `conformance.toml`, with what is not offered, what fails knowingly, and what is waived on one device.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use flagos_backend_api::{Error, Result};
use flagos_runtime::discover::glob;
use serde::Deserialize;

/// Where an exception stands in the file, which is what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An optional cell that is not offered; offering it makes the entry wrong.
    Unsupported,
    /// Fails, and its maker knows; passing makes the entry wrong.
    Xfail,
    /// Fails on this device and driver, and is used all the same.
    Waived,
}

/// One entry of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// Glob on case ids (`conv2d/f64/*`).
    pub case: String,
    /// Who answers for it.
    pub owner: String,
    /// Last day on which it holds.
    pub expires: toml::value::Datetime,
    /// Why.
    pub reason: String,
    /// Glob on the product name of the device; absent: any. Required for waivers.
    #[serde(default)]
    pub device: Option<String>,
    /// Glob on the driver; absent: any.
    #[serde(default)]
    pub driver: Option<String>,
}

/// An entry with its place in the file.
pub type Listed<'a> = (Kind, &'a Exception);

/// The file. See the crate's README for its form.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exceptions {
    /// Form of the file: 1.
    #[serde(default)]
    pub format: u32,
    /// Backend the file speaks of; needed where one folder holds several backends.
    #[serde(default)]
    pub backend: Option<String>,
    /// Profiles the backend promises.
    #[serde(default)]
    pub profiles: Vec<String>,
    #[serde(default)]
    unsupported: Vec<Exception>,
    #[serde(default)]
    xfail: Vec<Exception>,
    #[serde(default)]
    waived: Vec<Exception>,
    /// Where it was read from.
    #[serde(skip)]
    pub path: PathBuf,
}

impl Exceptions {
    /// Reads a file. Errors name the file, the entry and the way out.
    pub fn read(path: &Path) -> Result<Exceptions> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::invalid(format!("{}: {e}", path.display())))?;
        Exceptions::parse(&text, path)
    }

    /// Reads text; `path` names it in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Exceptions> {
        let at = |what: &dyn core::fmt::Display| Error::invalid(format!("{}: {}", path.display(), what.to_string().trim().replace('\n', " ")));
        let mut file: Exceptions = toml::from_str(text).map_err(|e| at(&e))?;
        if file.format != 1 {
            return Err(at(&format!("format is {}; this suite reads format = 1", file.format)));
        }
        for (kind, e) in file.all() {
            if e.expires.date.is_none() {
                return Err(at(&format!("'{}' expires at {}; give a date (2027-01-31)", e.case, e.expires)));
            }
            if e.owner.trim().is_empty() || e.reason.trim().is_empty() {
                return Err(at(&format!("'{}' has no owner or no reason; say who answers for it, and why", e.case)));
            }
            if kind == Kind::Waived && e.device.is_none() {
                return Err(at(&format!("the waiver of '{}' names no device; a waiver holds for one device (device = \"*A100*\")", e.case)));
            }
        }
        file.path = path.to_owned();
        Ok(file)
    }

    /// The file beside a manifest, if there is one: `NAME.conformance.toml`, or `conformance.toml` that names the backend or none.
    pub fn beside(manifest: &Path, backend: &str) -> Result<Option<Exceptions>> {
        let folder = manifest.parent().unwrap_or(Path::new("/"));
        let own = folder.join(format!("{backend}.conformance.toml"));
        if own.exists() {
            return Exceptions::read(&own).map(Some);
        }
        let shared = folder.join("conformance.toml");
        if !shared.exists() {
            return Ok(None);
        }
        let file = Exceptions::read(&shared)?;
        Ok(file.backend.as_deref().is_none_or(|name| name == backend).then_some(file))
    }

    fn all(&self) -> impl Iterator<Item = (Kind, &Exception)> {
        [(Kind::Unsupported, &self.unsupported), (Kind::Xfail, &self.xfail), (Kind::Waived, &self.waived)]
            .into_iter()
            .flat_map(|(kind, entries)| entries.iter().map(move |e| (kind, e)))
    }

    /// Entries in force on a device and driver on a day, and those that have expired.
    pub fn in_force(&self, device: &str, driver: &str, today: Day) -> (Vec<Listed<'_>>, Vec<Listed<'_>>) {
        let fits = |pattern: &Option<String>, text: &str| pattern.as_deref().is_none_or(|p| glob(p, text));
        self.all().filter(|(_, e)| fits(&e.device, device) && fits(&e.driver, driver)).partition(|(_, e)| today <= Day::of(e))
    }
}

/// A calendar day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(u16, u8, u8);

impl Day {
    /// A day by year, month and day of the month.
    pub fn new(year: u16, month: u8, day: u8) -> Day {
        Day(year, month, day)
    }
    /// Today, UTC.
    pub fn today() -> Day {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Day::since_1970(seconds / 86_400)
    }
    fn of(e: &Exception) -> Day {
        e.expires.date.map_or(Day(0, 0, 0), |d| Day(d.year, d.month, d.day))
    }
    /// The day a number of days after 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms", civil_from_days).
    fn since_1970(days: u64) -> Day {
        let z = days + 719_468;
        let (era, of_era) = (z / 146_097, z % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Day((year_of_era + era * 400 + u64::from(month <= 2)) as u16, month as u8, day as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        format = 1
        profiles = ["core"]
        [[unsupported]]
        case = "conv2d/f64/*"
        owner = "a@b"
        expires = 2027-01-31
        reason = "no f64 unit"
        [[waived]]
        case = "exp/f16/*"
        owner = "a@b"
        expires = 2026-01-31
        reason = "driver bug"
        device = "X*"
        driver = "5.*"
    "#;

    #[test]
    fn days_follow_the_calendar() {
        for (days, day) in [(0, Day(1970, 1, 1)), (59, Day(1970, 3, 1)), (11_016, Day(2000, 2, 29)), (20_781, Day(2026, 11, 24))] {
            assert_eq!(Day::since_1970(days), day);
        }
    }

    #[test]
    fn entries_hold_until_their_day_on_their_device() {
        let file = Exceptions::parse(FILE, Path::new("c.toml")).unwrap();
        let count = |device, day| {
            let (live, old) = file.in_force(device, "5.4", day);
            (live.len(), old.len())
        };
        assert_eq!(count("X1", Day(2026, 1, 31)), (2, 0));
        assert_eq!(count("X1", Day(2026, 2, 1)), (1, 1));
        assert_eq!(count("Y1", Day(2026, 2, 1)), (1, 0));
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, part) in [
            ("format = 1", "format = 2", "format is 2"),
            ("owner = \"a@b\"", "owner = \"\"", "no owner"),
            ("device = \"X*\"", "", "names no device"),
            ("expires = 2027-01-31", "", "expires"),
            ("reason =", "raeson =", "raeson"),
        ] {
            let error = Exceptions::parse(&FILE.replacen(from, to, 1), Path::new("c.toml")).unwrap_err().message;
            assert!(error.contains(part) && error.contains("c.toml"), "{error}");
        }
    }
}
