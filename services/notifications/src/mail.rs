//! A notification as a mail (RFC 5322): the same notification gives the same bytes.

use lettre::{
    Address, Message,
    message::{
        Mailbox, SinglePart,
        header::{HeaderName, HeaderValue},
    },
};
use time::OffsetDateTime;

use crate::{domain::plain, store::Due};

/// Why there can be no such mail. Says nothing of the address: it is kept in logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// The address is not one of a mailbox.
    #[error("the address is not valid")]
    Address,
    /// A header is missing: a mistake of ours.
    #[error("the mail cannot be built")]
    Build,
}

/// The mail of a notification. Values of headers that came from outside are an address, which is
/// parsed, and text, which is put into one line and encoded: neither can end its header.
///
/// # Errors
/// [`Unsendable`]: trying again makes no difference.
pub fn render(due: &Due, from: &Mailbox) -> Result<Vec<u8>, Unsendable> {
    let address: Address = due.address.parse().map_err(|_error| Unsendable::Address)?;
    let mail = Message::builder()
        .date(date(due.happened_at).into())
        .from(from.clone())
        .to(Mailbox::new(None, address))
        .subject(plain(&due.letter.subject))
        .message_id(Some(format!("<{}>", due.message_id)))
        // Holiday notices are not answers to us (RFC 3834).
        .raw_header(header(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated"))
        .raw_header(header(
            HeaderName::new_from_ascii_str("Ordermesh-Notification"),
            &format!("notifications/{}", due.id),
        ))
        .raw_header(header(
            HeaderName::new_from_ascii_str("Ordermesh-Order"),
            &format!("orders/{}", due.order),
        ))
        .raw_header(header(HeaderName::new_from_ascii_str("Ordermesh-Kind"), due.kind.as_str()))
        .singlepart(SinglePart::plain(due.letter.body.clone()))
        .map_err(|_error| Unsendable::Build)?;
    Ok(mail.formatted())
}

/// The name of the mail's file: it follows from the mail's identity alone.
#[must_use]
pub fn file_name(message_id: &str) -> String {
    // Neither a folder nor, in a maildir, the flags of a mail that was read.
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
    message_id.replace('@', ".").chars().map(safe).collect()
}

fn header(name: HeaderName, value: &str) -> HeaderValue {
    HeaderValue::new(name, value.to_owned())
}

/// A date that a header can hold: what is before 1970 is an event's mistake, not ours.
fn date(at: OffsetDateTime) -> OffsetDateTime {
    at.max(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{Kind, Letter};

    fn due() -> Due {
        let id = Uuid::from_u128(1);
        Due {
            id,
            order: Uuid::from_u128(2),
            kind: Kind::OrderConfirmed,
            address: "ada@example.com".to_owned(),
            letter: Letter {
                subject: "Your order is confirmed".to_owned(),
                body: "Hello,\n\n  2 × A mug: 19.98 EUR\n".to_owned(),
            },
            message_id: format!("order-confirmed.{id}@ordermesh.example"),
            attempt: 1,
            happened_at: OffsetDateTime::UNIX_EPOCH,
            traceparent: String::new(),
        }
    }

    fn text(due: &Due) -> Result<String, Unsendable> {
        let from = "Ordermesh <orders@ordermesh.example>".parse().unwrap();
        render(due, &from).map(|mail| String::from_utf8(mail).unwrap())
    }

    #[test]
    fn a_mail_has_the_headers_that_a_mail_needs_and_is_the_same_each_time() {
        let mail = text(&due()).unwrap();
        assert_eq!(mail, text(&due()).unwrap());
        let (head, body) = mail.split_once("\r\n\r\n").unwrap();
        for line in [
            "Date: Thu, 01 Jan 1970 00:00:00 +0000",
            "From: Ordermesh <orders@ordermesh.example>",
            "To: ada@example.com",
            "Subject: Your order is confirmed",
            "Message-ID: <order-confirmed.00000000-0000-0000-0000-000000000001@ordermesh.example>",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
            "Auto-Submitted: auto-generated",
            "Ordermesh-Kind: ORDER_CONFIRMED",
        ] {
            assert!(head.split("\r\n").any(|header| header == line), "no `{line}` in {head}");
        }
        assert!(head.is_ascii() && body.is_ascii(), "encoded for every way that mails take");
        assert!(body.contains("2 =C3=97 A mug: 19.98 EUR"), "{body}");
    }

    #[test]
    fn nothing_from_outside_begins_a_header_or_ends_them() {
        let evil = "x\r\nBcc: all@example.com\r\n\r\nBuy!";
        let harmless = text(&due()).unwrap();
        let names = |mail: &str| {
            let (head, _) = mail.split_once("\r\n\r\n").unwrap();
            let lines = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t']));
            lines.map(|line| line.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        for end in ["\r\n", "\n", "\r", "\u{2028}", "\u{85}", "\0"] {
            let mut due = due();
            due.letter.subject = evil.replace("\r\n", end);
            assert_eq!(names(&text(&due).unwrap()), names(&harmless), "{end:?}");
            due.address = format!("ada@example.com{end}Bcc: all@example.com");
            assert_eq!(text(&due), Err(Unsendable::Address), "{end:?}");
        }
        for address in ["", "ada", "ada@example.com, eve@example.com", "<ada@example.com>"] {
            assert_eq!(
                text(&Due { address: address.to_owned(), ..due() }),
                Err(Unsendable::Address),
                "{address}"
            );
        }
    }

    #[test]
    fn a_file_is_named_after_its_mail_and_lies_in_its_folder() {
        assert_eq!(
            file_name("order-confirmed.1@ordermesh.example"),
            "order-confirmed.1.ordermesh.example"
        );
        assert_eq!(file_name("a@[IPv6:::1]/../b"), "a._IPv6___1__.._b");
    }

    #[test]
    fn an_event_from_before_1970_does_not_end_the_process() {
        let happened_at = OffsetDateTime::UNIX_EPOCH - time::Duration::days(1);
        assert!(text(&Due { happened_at, ..due() }).is_ok());
    }
}
