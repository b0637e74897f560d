//! C comments from Rust documentation lines.

/// Greatest line length of generated headers.
pub const WIDTH: usize = 120;

/// Width of a list item's mark, 0 for other lines: `- `, `1. `.
fn mark(line: &str) -> usize {
    match line.split_once(' ') {
        Some(("-", _)) => 2,
        Some((n, _)) if n.strip_suffix('.').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) => n.len() + 1,
        _ => 0,
    }
}

/// Paragraphs of documentation lines: lines flow together until an empty line, which stays, or a list item.
fn paragraphs<S: AsRef<str>>(lines: &[S]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut open = false;
    for line in lines.iter().map(|l| plain(l.as_ref())) {
        if line.is_empty() {
            if open {
                out.push(String::new());
            }
            open = false;
        } else if open && mark(&line) == 0 {
            let last = out.last_mut().expect("a paragraph is open");
            last.push(' ');
            last.push_str(&line);
        } else {
            out.push(line);
            open = true;
        }
    }
    if out.last().is_some_and(String::is_empty) {
        out.pop();
    }
    out
}

/// Text without Rust's link syntax and without what would end or nest a C comment.
fn plain(line: &str) -> String {
    line.trim().replace("[`", "`").replace("`]", "`").replace("*/", "* /").replace("/*", "/ *")
}

/// The documentation as one line, if it fits `width`.
pub fn one_line<S: AsRef<str>>(lines: &[S], width: usize) -> Option<String> {
    let text: Vec<String> = paragraphs(lines).into_iter().filter(|p| !p.is_empty()).collect();
    let text = text.join(" ");
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
    let start = |i: usize| if i == 0 { "/* " } else { " * " };
    let lines: Vec<String> = wrapped.iter().enumerate().map(|(i, l)| format!("{pad}{}{l}", start(i)).trim_end().to_owned()).collect();
    format!("{} */\n", lines.join("\n"))
}

/// Breaks at spaces; further lines of a list item stand under its text.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let hang = " ".repeat(mark(text));
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(format!("{hang}{word}"));
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
        assert_eq!(block(&["Rules", "", "1. one", "   goes on", "2. two", ""], 0), "/* Rules\n *\n * 1. one goes on\n * 2. two */\n");
    }
}
