//! Numbers for people, and text of others made harmless: names of views, zones and failures come from outside, and must
//! come out as text wherever they are written.

/// Three significant digits, thousands divided by commas: `1.23`, `45.6`, `12,300`. A whole number under 1,000 is
/// written as it is; what is no number or without end, in words; what is very large or small, with its power of ten.
pub fn number(value: f64) -> String {
    match value {
        _ if value.is_nan() => return "not a number".to_owned(),
        f64::INFINITY => return "infinite".to_owned(),
        f64::NEG_INFINITY => return "-infinite".to_owned(),
        _ if value.fract() == 0.0 && value.abs() < 1_000.0 => return format!("{}", value as i64),
        _ => {}
    }
    let scientific = format!("{value:.2e}");
    // Taken from the rounded text: 9.996 is 10.0, with one decimal less than its own power of ten would give.
    let exponent = scientific.rsplit('e').next().and_then(|digits| digits.parse::<i32>().ok()).unwrap_or_default();
    if !(-6..15).contains(&exponent) {
        return scientific;
    }
    let rounded: f64 = scientific.parse().unwrap_or(value);
    let decimals = usize::try_from(2 - exponent).unwrap_or_default();
    grouped(&format!("{rounded:.decimals$}"))
}

/// All digits, thousands divided by commas.
pub fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// Between this and 100 % what is missing is what matters: 99.97 % is not 100 %.
const NEARLY_ALL: f64 = 99.0;

/// A number and its unit. Shares a little below 100 % have four decimals, cut rather than rounded.
pub fn figure(value: f64, unit: &str) -> String {
    let unit = one_line(unit);
    if unit == "%" && value > NEARLY_ALL && value < 100.0 {
        return format!("{} %", (value * 1e4).floor() / 1e4);
    }
    if unit.is_empty() { number(value) } else { format!("{} {unit}", number(value)) }
}

/// So many seconds: `1 h 12 min 5 s`, or `8.25 s` if they are under two minutes.
pub fn duration(seconds: f64) -> String {
    if !(120.0..1e9).contains(&seconds) {
        return figure(seconds, "s");
    }
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3_600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours} h {minutes} min {seconds} s") } else { format!("{minutes} min {seconds} s") }
}

/// A decimal number without zeros at its end that say nothing.
pub fn trimmed(decimal: &str) -> &str {
    match decimal.contains('.') && !decimal.contains('e') {
        true => decimal.trim_end_matches('0').trim_end_matches('.'),
        false => decimal,
    }
}

/// Thousands of a decimal number divided by commas.
pub fn grouped(decimal: &str) -> String {
    let (sign, rest) = decimal.split_at(usize::from(decimal.starts_with('-')));
    let (whole, fraction) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
    let mut out = sign.to_owned();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

/// The text on one line: line ends and other control characters, among them those that steer a terminal, are spaces.
pub fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ").trim().to_owned()
}

/// Text that Markdown takes for text, in a table too. A `<` is left alone where it opens no tag, so that bars stay
/// readable.
pub fn markdown(text: &str) -> String {
    let text = one_line(text);
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let after = rest.peek().copied().unwrap_or(' ');
        let escaped = match c {
            '\\' | '`' | '*' | '[' | ']' | '|' | '~' | '$' => true,
            '_' => !(before.is_alphanumeric() && after.is_alphanumeric()),
            '<' => after.is_ascii_alphabetic() || matches!(after, '/' | '!' | '?'),
            '&' => after.is_ascii_alphanumeric() || after == '#',
            _ => false,
        };
        if escaped {
            out.push('\\');
        }
        out.push(c);
        before = c;
    }
    out
}

/// Text as it is typed, in Markdown. For a table, each `|` still needs a `\` before it.
pub fn markdown_code(text: &str) -> String {
    let text = one_line(text);
    if text.is_empty() {
        return text;
    }
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest + 1);
    if longest > 0 { format!("{fence} {text} {fence}") } else { format!("{fence}{text}{fence}") }
}

/// Text that HTML takes for text, between tags and in a quoted attribute.
pub fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// At most so many characters; what is cut off shows as `…`.
pub fn shortened(text: &str, chars_max: usize) -> String {
    let text = one_line(text);
    if text.chars().count() <= chars_max {
        return text;
    }
    let kept: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    kept.trim_end().to_owned() + "…"
}

/// The text in lines of at most so many characters, broken between words where it can be; what is cut off shows as `…`.
pub fn wrapped(text: &str, chars_max: usize, lines_max: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in one_line(text).split_whitespace() {
        let line = lines.last_mut().expect("there is a line from the start");
        if line.is_empty() {
            *line = word.to_owned();
        } else if line.chars().count() + 1 + word.chars().count() <= chars_max {
            *line = format!("{line} {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    if lines.len() > lines_max {
        lines.truncate(lines_max);
        lines.iter_mut().next_back().into_iter().for_each(|line| line.push_str(" …"));
    }
    lines.iter().map(|line| shortened(line, chars_max)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_a_little_below_all_is_not_all() {
        assert_eq!(figure(99.999_99, "%"), "99.9999 %");
        assert_eq!(figure(99.97, "%"), "99.97 %");
        assert_eq!(figure(100.0, "%"), "100 %");
        assert_eq!(figure(98.765, "%"), "98.8 %");
    }

    #[test]
    fn numbers_have_three_digits_and_commas() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (7.0, "7"),
            (1.2345, "1.23"),
            (9.996, "10.0"),
            (99.96, "100"),
            (999.6, "1,000"),
            (12_345.0, "12,300"),
            (1_234_567.0, "1,230,000"),
            (-1_234.0, "-1,230"),
            (0.001_234, "0.00123"),
            (1e-9, "1.00e-9"),
            (1e300, "1.00e300"),
            (f64::NAN, "not a number"),
            (f64::INFINITY, "infinite"),
        ];
        cases.iter().for_each(|(value, text)| assert_eq!(number(*value), *text));
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(figure(1.5, "x"), "1.50 x");
        assert_eq!(figure(1.5, ""), "1.50");
        assert_eq!(
            [trimmed("0.500"), trimmed("2.00"), trimmed("100"), trimmed("1.00e10")],
            ["0.5", "2", "100", "1.00e10"]
        );
    }

    #[test]
    fn durations_are_in_units_of_people() {
        assert_eq!(duration(8.25), "8.25 s");
        assert_eq!(duration(4_325.2), "1 h 12 min 5 s");
        assert_eq!(duration(150.0), "2 min 30 s");
        assert_eq!(duration(f64::NAN), "not a number s");
    }

    #[test]
    fn markdown_text_is_text() {
        assert_eq!(markdown("<= 1.5 x | a_b"), r"<= 1.5 x \| a_b");
        assert_eq!(markdown("<script>"), r"\<script>");
        assert_eq!(markdown("<!-- figures: end -->\nnext"), r"\<!-- figures: end --> next");
        assert_eq!(markdown("*a* _b_ `c` [d](e) &amp; \\"), r"\*a\* \_b\_ \`c\` \[d\](e) \&amp; \\");
        assert_eq!(markdown_code("a ` b `` c"), "``` a ` b `` c ```");
        assert_eq!(markdown_code("plain"), "`plain`");
        assert_eq!(markdown_code("\n"), "");
    }

    #[test]
    fn html_text_is_text() {
        assert_eq!(html("<script a='b'>\"&"), "&lt;script a=&#39;b&#39;&gt;&quot;&amp;");
    }

    #[test]
    fn what_steers_a_terminal_is_a_space() {
        assert_eq!(one_line("a\u{1b}[31mb\r\nc\0"), "a [31mb  c");
    }

    #[test]
    fn what_is_cut_off_shows() {
        assert_eq!(shortened("zürich north", 7), "zürich…");
        assert_eq!(shortened("short", 5), "short");
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("one two  three four", 8, 3), ["one two", "three", "four"]);
        assert_eq!(wrapped("one two three four", 8, 2), ["one two", "three …"]);
        assert_eq!(wrapped("unbreakable", 5, 2), ["unbr…"]);
        assert_eq!(wrapped("", 5, 2), [""]);
    }
}
