//! Conversions between f32 and floats of 8 and 16 bits, by operations on bits: for languages and types without conversions of their own.

use crate::Elem;

/// Layout of a narrow float.
struct Layout {
    width: u32,
    mantissa: u32,
    bias: u32,
    /// Greatest finite magnitude, infinity (NaN where there is none), NaN: as bits.
    most: u32,
    infinity: u32,
    nan: u32,
}

/// A narrow float's name in helpers.
pub(super) fn tag(elem: Elem) -> &'static str {
    match elem {
        Elem::F16 => "f16",
        Elem::BF16 => "bf16",
        Elem::F8E4M3 => "e4m3",
        Elem::F8E5M2 => "e5m2",
        Elem::F32 => "f32",
        _ => "f64",
    }
}

fn layout(tag: &str) -> Option<Layout> {
    let (width, mantissa, bias, most, infinity, nan) = match tag {
        "f16" => (16, 10, 15, 0x7bff, 0x7c00, 0x7e00),
        "bf16" => (16, 7, 127, 0x7f7f, 0x7f80, 0x7fc0),
        "e4m3" => (8, 3, 7, 0x7e, 0x7f, 0x7f),
        "e5m2" => (8, 2, 15, 0x7b, 0x7c, 0x7e),
        _ => return None,
    };
    Some(Layout { width, mantissa, bias, most, infinity, nan })
}

/// Text of `f32_from_T`, `T_from_f32` or `T_rtz_from_f32`.
pub(super) fn helper(name: &str) -> Option<String> {
    let (to, from) = name.split_once("_from_")?;
    if to == "f32" {
        return layout(from).map(|l| widen(from, &l));
    }
    if from != "f32" {
        return None;
    }
    match to.strip_suffix("_rtz") {
        Some(to) => layout(to).map(|l| toward_zero(to, &l)),
        None => layout(to).map(|l| nearest(to, &l)),
    }
}

fn widen(tag: &str, l: &Layout) -> String {
    let (width, sign) = (l.width, l.width - 1);
    if tag == "bf16" {
        return "FN f32 fl_f32_from_bf16(u16 x) {\n    return fl_as_f32((u32)x << 16);\n}\n".to_owned();
    }
    let (shift, adjust) = (23 - l.mantissa, (127 - l.bias) << 23);
    let (least, magic) = (1u32 << l.mantissa, adjust + (1 << 23));
    let special = if l.infinity == l.nan { format!("n = m == {:#x}u ? 0x7fc00000u : n;", l.nan) } else { format!("n = m >= {:#x}u ? n | 0x7f800000u : n;", l.infinity) };
    format!(
        "FN f32 fl_f32_from_{tag}(u{width} x) {{
    const u32 m = x & {:#x}u;
    const u32 tiny = fl_as_u32(fl_as_f32((m << {shift}) + {magic:#x}u) - fl_as_f32({magic:#x}u));
    u32 n = (m << {shift}) + {adjust:#x}u;
    {special}
    n = m < {least:#x}u ? tiny : n;
    return fl_as_f32(n | ((u32)x >> {sign}) << 31);
}}
",
        (1u32 << sign) - 1,
    )
}

fn head(tag: &str, l: &Layout, mode: &str) -> String {
    let (width, sign) = (l.width, l.width - 1);
    format!(
        "FN u{width} fl_{tag}{mode}_from_f32(f32 x) {{
    const u32 b = fl_as_u32(x), m = b & 0x7fffffffu, s = (b >> 31) << {sign};
"
    )
}

fn nearest(tag: &str, l: &Layout) -> String {
    let shift = 23 - l.mantissa;
    let mut text = head(tag, l, "");
    text += &format!("    const u32 n = (m + {:#x}u + ((m >> {shift}) & 1u)) >> {shift};\n", (1u32 << (shift - 1)) - 1);
    if tag == "bf16" {
        text += "    u32 r = n;\n";
    } else {
        let magic = (127 + 23 + 1 - l.bias - l.mantissa) << 23;
        text += &format!("    const u32 tiny = fl_as_u32(fl_as_f32(m) + fl_as_f32({magic:#x}u)) - {magic:#x}u;\n");
        text += &format!("    u32 r = m < {:#x}u ? tiny : n - {:#x}u;\n", (128 - l.bias) << 23, (127 - l.bias) << l.mantissa);
        text += &format!("    r = r > {:#x}u ? {:#x}u : r;\n", l.most, l.infinity);
    }
    text += &format!("    r = m > 0x7f800000u ? {:#x}u : r;\n    return (u{})(r | s);\n}}\n", l.nan, l.width);
    text
}

fn toward_zero(tag: &str, l: &Layout) -> String {
    let shift = 23 - l.mantissa;
    let mut text = head(tag, l, "_rtz");
    if tag == "bf16" {
        text += "    u32 r = m >> 16;\n";
    } else {
        let least = 128 - l.bias;
        text += &format!("    const u32 e = m >> 23, lost = e < {least}u ? {least}u - e + {shift}u : {shift}u;\n");
        text += "    const u32 tiny = lost < 32u ? ((m & 0x7fffffu) | 0x800000u) >> (lost & 31u) : 0u;\n";
        text += &format!("    u32 r = e < {least}u ? (e == 0u ? 0u : tiny) : (m >> {shift}) - {:#x}u;\n", (127 - l.bias) << l.mantissa);
        text += &format!("    r = r > {:#x}u ? {:#x}u : r;\n    r = m == 0x7f800000u ? {:#x}u : r;\n", l.most, l.most, l.infinity);
    }
    text += &format!("    r = m > 0x7f800000u ? {:#x}u : r;\n    return (u{})(r | s);\n}}\n", l.nan, l.width);
    text
}
