//! Functions that kernels call, written in what C-like languages have in common; a kernel's text holds those it calls.
//!
//! Every name begins with `fl_`. A dialect gives its own text for the primitives (`fl_as_*`, `fl_clz*`, …) and for what its language does better.

use std::collections::HashSet;

use super::narrow;
use super::source::Dialect;

/// Definitions of all helpers that `body` calls, each before its users.
pub(super) fn used_by(body: &str, dialect: &dyn Dialect) -> String {
    let (mut out, mut done) = (String::new(), HashSet::new());
    define(body, dialect, &mut out, &mut done);
    out
}

fn define(text: &str, dialect: &dyn Dialect, out: &mut String, done: &mut HashSet<String>) {
    for (at, _) in text.match_indices("fl_") {
        let rest = &text[at + 3..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = &rest[..end];
        if done.contains(name) {
            continue;
        }
        done.insert(name.to_owned());
        if let Some(helper) = dialect.helper(name).or_else(|| common(name)) {
            define(&helper, dialect, out, done);
            out.push_str(&helper);
            out.push('\n');
        }
    }
}

/// Text of a helper all dialects share; `name` without "fl_". `#` stands for the width its name ends with, `@` for the suffix of constants.
fn common(name: &str) -> Option<String> {
    if let Some(text) = narrow::helper(name) {
        return Some(text);
    }
    if let Some(kind) = name.strip_prefix("sat_") {
        return saturate(kind);
    }
    let (base, width) = name.rsplit_once('_')?;
    let bits = width.trim_start_matches(['u', 'f', 'i']);
    let template = match base {
        "divs" => "FN u# fl_divs_u#(u# a, u# b) {\n    const i# d = b == 0u ? 1 : (i#)b;\n    return d == -1 ? 0u - a : (u#)((i#)a / d);\n}\n",
        "rems" => "FN u# fl_rems_u#(u# a, u# b) {\n    const i# d = b == 0u || b == (u#)(i#)-1 ? 1 : (i#)b;\n    return (u#)((i#)a % d);\n}\n",
        "divu" => "FN u# fl_divu_u#(u# a, u# b) {\n    return a / (b == 0u ? 1u : b);\n}\n",
        "remu" => "FN u# fl_remu_u#(u# a, u# b) {\n    return a % (b == 0u ? 1u : b);\n}\n",
        "ceildivs" => {
            "FN u# fl_ceildivs_u#(u# a, u# b) {
    const u# q = fl_divs_u#(a, b), r = a - q * b;
    return q + (u#)(r != 0u && ((i#)r < 0) == ((i#)b < 0));
}
"
        }
        "floordivs" => {
            "FN u# fl_floordivs_u#(u# a, u# b) {
    const u# q = fl_divs_u#(a, b), r = a - q * b;
    return q - (u#)(r != 0u && ((i#)r < 0) != ((i#)b < 0));
}
"
        }
        "mulhi" if bits == "32" => "FN u32 fl_mulhi_u32(u32 a, u32 b) {\n    return (u32)(((u64)a * b) >> 32);\n}\n",
        "mulhi" => {
            "FN u64 fl_mulhi_u64(u64 a, u64 b) {
    const u64 al = (u32)a, ah = a >> 32, bl = (u32)b, bh = b >> 32;
    const u64 m = ah * bl + ((al * bl) >> 32), n = al * bh + (u32)m;
    return ah * bh + (m >> 32) + (n >> 32);
}
"
        }
        // The lesser of two floats, -0 below +0; false with a NaN.
        "less" if bits == "32" => "FN i1 fl_less_f32(f32 a, f32 b) {\n    return (a < b) | ((a == b) & ((fl_as_u32(a) >> 31) != 0u));\n}\n",
        "less" => "FN i1 fl_less_f64(f64 a, f64 b) {\n    return (a < b) | ((a == b) & ((fl_as_u64(a) >> 63) != 0u));\n}\n",
        "maximum" => "FN f# fl_maximum_f#(f# a, f# b) {\n    return (fl_less_f#(a, b) | (b != b)) & (a == a) ? b : a;\n}\n",
        "minimum" => "FN f# fl_minimum_f#(f# a, f# b) {\n    return (fl_less_f#(b, a) | (b != b)) & (a == a) ? b : a;\n}\n",
        "maxnum" => "FN f# fl_maxnum_f#(f# a, f# b) {\n    return fl_less_f#(a, b) | (a != a) ? b : a;\n}\n",
        "minnum" => "FN f# fl_minnum_f#(f# a, f# b) {\n    return fl_less_f#(b, a) | (a != a) ? b : a;\n}\n",
        // f64 to f32 toward zero, and to odd (so that one more rounding gives what a single one would).
        "rtz" => {
            "FN f32 fl_rtz_f64(f64 x) {
    const f32 r = (f32)x;
    const u32 b = fl_as_u32(r);
    return fl_as_f32((f64)fl_as_f32(b & 0x7fffffffu) > (x < 0 ? -x : x) ? b - 1u : b);
}
"
        }
        "odd" if width == "f64" => {
            "FN f32 fl_odd_f64(f64 x) {
    const f32 r = fl_rtz_f64(x);
    return (f64)r == x ? r : fl_as_f32(fl_as_u32(r) | 1u);
}
"
        }
        // A magnitude to f32, to odd at 24 bits.
        "odd" => {
            "FN f32 fl_odd_u64(u64 m) {
    const u32 lost = m >> 24 == 0u ? 0u : 40u - fl_clz_u64(m);
    const u64 kept = m >> lost;
    return (f32)(u32)(kept | (u64)(kept << lost != m)) * fl_as_f32((127u + lost) << 23);
}
"
        }
        _ => return None,
    };
    Some(template.replace('#', bits))
}

/// Float to integer, beyond its range the nearest: `i32_f64`.
fn saturate(kind: &str) -> Option<String> {
    let (low, high) = match kind {
        "i32_f32" => ("-2147483648.0f", "2147483520.0f"),
        "u32_f32" => ("0.0f", "4294967040.0f"),
        "i64_f32" => ("-9223372036854775808.0f", "9223371487098961920.0f"),
        "u64_f32" => ("0.0f", "18446742974197923840.0f"),
        "i32_f64" => ("-2147483648.0", "2147483647.0"),
        "u32_f64" => ("0.0", "4294967295.0"),
        "i64_f64" => ("-9223372036854775808.0", "9223372036854774784.0"),
        "u64_f64" => ("0.0", "18446744073709549568.0"),
        _ => return None,
    };
    let (to, from) = kind.split_once('_')?;
    let width = &to[1..];
    Some(format!(
        "FN u{width} fl_sat_{kind}({from} x) {{
    x = x > {low} ? x : {low};
    x = x < {high} ? x : {high};
    return (u{width})({to})x;
}}
"
    ))
}
