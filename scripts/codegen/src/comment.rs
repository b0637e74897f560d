//! C comments from Rust documentation lines.

/// Greatest line length of generated headers.
pub const WIDTH: usize = 120;

/// Paragraphs of documentation lines: lines flow together until an empty line or a list item.
fn paragraphs<S: AsRef<str>>(lines: &[S]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut open = false;
    for line in lines.iter().map(|l| plain(l.as_ref())) {
        let item = line.starts_with("- ") || line.split_once(". ").is_some_and(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if line.is_empty() {
            open = false;
        } else if open && !item {
            let last = out.last_mut().expect("a paragraph is open");
            last.push(' ');
            last.push_str(&line);
        } else {
            out.push(line);
            open = true;
        }
    }
    out
}

/// Text without Rust's link syntax and without what would end or nest a C comment.
fn plain(line: &str) -> String {
    line.trim().replace("[`", "`").replace("`]", "`").replace("*/", "* /").replace("/*", "/ *")
}

/// The documentation as one line, if it fits `width`.
pub fn one_line<S: AsRef<str>>(lines: &[S], width: usize) -> Option<String> {
    let text = paragraphs(lines).join(" ");
    (!text.is_empty() && text.chars().count() + 6 <= width).then(|| format!("/* {text} */"))
}

/// A comment block with every line at `indent` spaces; empty for no documentation.
pub fn block<S: AsRef<str>>(lines: &[S], indent: usize) -> String {
    let pad = " ".repeat(indent);
    let text = paragraphs(lines);
    if text.is_empty() {
        return String::new();
    }
    if let [only] = text.as_slice()
        && let Some(line) = one_line(&[only], WIDTH - indent)
    {
        return format!("{pad}{line}\n");
    }
    let wrapped: Vec<String> = text.iter().flat_map(|p| wrap(p, WIDTH - indent - 6)).collect();
    format!("{pad}/* {} */\n", wrapped.join(&format!("\n{pad} * ")))
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_cannot_be_ended_by_their_text() {
        assert_eq!(block(&[" a */ b /* c"], 0), "/* a * / b / * c */\n");
    }

    #[test]
    fn list_items_keep_their_lines() {
        assert_eq!(block(&["Rules", "1. one", "   goes on", "2. two"], 0), "/* Rules\n * 1. one goes on\n * 2. two */\n");
    }
}
