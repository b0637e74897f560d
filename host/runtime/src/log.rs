//! Log lines to standard error: one line each, at the level of FLAGOS_LOG (default `warn`).

use std::sync::OnceLock;

use flagos_backend_api::LogLevel;

/// The greatest level that is written.
pub fn level() -> LogLevel {
    static LEVEL: OnceLock<LogLevel> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let text = crate::env::var("FLAGOS_LOG").unwrap_or_default();
        [("error", LogLevel::ERROR), ("warn", LogLevel::WARN), ("info", LogLevel::INFO), ("debug", LogLevel::DEBUG)]
            .into_iter()
            .find(|(name, _)| *name == text)
            .map_or(LogLevel::WARN, |(_, level)| level)
    })
}

/// Writes a line if `at` is within the level.
pub fn line(at: LogLevel, text: &str) {
    if at <= level() {
        eprintln!("flagos: {text}");
    }
}

/// Something is off.
pub fn warn(text: &str) {
    line(LogLevel::WARN, text);
}

/// Worth knowing.
pub fn info(text: &str) {
    line(LogLevel::INFO, text);
}
