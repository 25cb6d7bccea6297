//! Redis' protocol, as far as a reader and writer of features needs it: commands into a buffer, answers in place out of one
//! (RESP2, redis.io/docs/latest/develop/reference/protocol-spec).

use anyhow::{Context, bail};

/// Appends a command.
pub fn put_command<'a>(out: &mut Vec<u8>, arguments: impl ExactSizeIterator<Item = &'a [u8]>) {
    put_head(out, b'*', arguments.len());
    for argument in arguments {
        put_head(out, b'$', argument.len());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

fn put_head(out: &mut Vec<u8>, kind: u8, count: usize) {
    // `write!` costs more than all the rest of a short command.
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = count;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.push(kind);
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Where the answer that begins at `from` ends; `None` if not all of it is here yet.
///
/// # Errors
/// If it is none.
pub fn end_of(input: &[u8], from: usize) -> anyhow::Result<Option<usize>> {
    let Some((kind, number, mut at)) = head(input, from)? else { return Ok(None) };
    match kind {
        b'$' if number >= 0 => at += number as usize + 2,
        b'*' => {
            for _ in 0..number {
                let Some(end) = end_of(input, at)? else { return Ok(None) };
                at = end;
            }
        }
        _ => {}
    }
    Ok((at <= input.len()).then_some(at))
}

/// The values of a whole answer that is an array of strings, in order; `None` for one that is missing.
///
/// # Errors
/// If it is something else: an error of the server's, above all, in its words.
pub fn values(answer: &[u8]) -> anyhow::Result<impl Iterator<Item = Option<&[u8]>>> {
    let (kind, count, mut at) = head(answer, 0)?.context("an answer has a head")?;
    if kind != b'*' {
        bail!("Redis answered {}", told(answer));
    }
    Ok((0..count).map(move |_| {
        let (_, length, from) = head(answer, at).ok().flatten()?;
        let value = (length >= 0).then(|| &answer[from..from + length as usize]);
        at = value.map_or(from, |value| from + value.len() + 2);
        value
    }))
}

/// The number that a whole answer is.
///
/// # Errors
/// If it is something else.
pub fn number(answer: &[u8]) -> anyhow::Result<i64> {
    match head(answer, 0)? {
        Some((b':', number, _)) => Ok(number),
        _ => bail!("Redis answered {}", told(answer)),
    }
}

/// Whether a whole answer is the server's consent.
///
/// # Errors
/// If it is something else.
pub fn consent(answer: &[u8]) -> anyhow::Result<()> {
    match answer {
        b"+OK\r\n" | b"+PONG\r\n" => Ok(()),
        _ => bail!("Redis answered {}", told(answer)),
    }
}

/// The first line of an answer, for people.
pub fn told(answer: &[u8]) -> String {
    const SHOWN: usize = 120;
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).into_owned()
}

/// The kind of what begins at `from`, its number (0 for text) and where its head ends.
fn head(input: &[u8], from: usize) -> anyhow::Result<Option<(u8, i64, usize)>> {
    let Some(rest) = input.get(from..).filter(|rest| !rest.is_empty()) else { return Ok(None) };
    let Some(line) = rest.iter().position(|byte| *byte == b'\r') else { return Ok(None) };
    let number = match rest[0] {
        b'+' | b'-' => 0,
        b'$' | b'*' | b':' => {
            std::str::from_utf8(&rest[1..line]).ok().and_then(|text| text.parse().ok()).context("a number")?
        }
        other => bail!("no answer of Redis begins with the byte {other}"),
    };
    let end = from + line + 2;
    Ok((end <= input.len()).then_some((rest[0], number, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_its_parts_with_their_lengths() {
        let mut out = Vec::new();
        put_command(&mut out, [&b"MGET"[..], b"a\r\nb", b""].into_iter());
        assert_eq!(out, b"*3\r\n$4\r\nMGET\r\n$4\r\na\r\nb\r\n$0\r\n\r\n");
    }

    #[test]
    fn an_answer_ends_where_all_of_it_is_here_and_no_earlier() {
        let answer = b"*3\r\n$3\r\na\r\n\r\n$-1\r\n$0\r\n\r\n";
        for cut in 0..answer.len() {
            assert_eq!(end_of(&answer[..cut], 0).unwrap(), None, "{cut}");
        }
        let two = [&answer[..], b":17\r\n"].concat();
        assert_eq!(end_of(&two, 0).unwrap(), Some(answer.len()));
        assert_eq!(end_of(&two, answer.len()).unwrap(), Some(two.len()));
        assert_eq!(values(answer).unwrap().collect::<Vec<_>>(), [Some(&b"a\r\n"[..]), None, Some(b"")]);
        assert_eq!(number(b":17\r\n").unwrap(), 17);
        assert!(end_of(b"HTTP/1.1 400\r\n", 0).is_err());
    }

    #[test]
    fn what_the_server_refuses_is_told_in_its_words() {
        let refused = b"-OOM command not allowed\r\n";
        assert_eq!(end_of(refused, 0).unwrap(), Some(refused.len()));
        for error in [values(refused).err(), number(refused).err(), consent(refused).err()] {
            assert!(error.is_some_and(|error| error.to_string().contains("OOM command not allowed")));
        }
    }
}
