//! Text of others, made fit to stand in a line of ours.

/// The longest text that is taken over from an event, in characters.
const MAX: usize = 200;

/// The text in one line: without line breaks, control characters and marks that turn the
/// direction of reading, with which it could pass for something that we say; cut if it is long.
#[must_use]
pub fn plain(text: &str) -> String {
    let visible = |c: char| if is_harmless(c) { c } else { ' ' };
    let mut line = String::new();
    for word in text.chars().map(visible).collect::<String>().split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if line.chars().count() > MAX {
        line = line.chars().take(MAX - 1).collect();
        line.push('…');
    }
    line
}

fn is_harmless(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{61c}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
    );
    !c.is_control() && !turns
}
