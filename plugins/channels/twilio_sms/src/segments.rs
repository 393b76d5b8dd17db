//! The length of a text in segments, as networks count it (3GPP TS 23.038).

/// The characters of GSM's alphabet, one septet each.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// Those of its extension, two septets each.
const EXTENSION: &str = "\u{c}^{}\\[~]|€";

/// How many segments a text takes. A longer text has less room in each, because a header numbers them.
pub fn count(text: &str) -> usize {
    let septets = |c: char| match c {
        c if BASIC.contains(c) => Some(1),
        c if EXTENSION.contains(c) => Some(2),
        _ => None,
    };
    match text.chars().map(septets).collect::<Option<Vec<usize>>>() {
        Some(lengths) => segments(&lengths, 160, 153),
        None => segments(&text.chars().map(char::len_utf16).collect::<Vec<_>>(), 70, 67),
    }
}

/// A character of two units is never split.
fn segments(lengths: &[usize], alone: usize, in_parts: usize) -> usize {
    if lengths.iter().sum::<usize>() <= alone {
        return 1;
    }
    let (mut segments, mut used) = (1, 0);
    for length in lengths {
        if used + length > in_parts {
            (segments, used) = (segments + 1, 0);
        }
        used += length;
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_gsm_letters_has_160_and_then_153_in_a_segment() {
        for (length, expected) in [(0, 1), (160, 1), (161, 2), (306, 2), (307, 3)] {
            assert_eq!(count(&"a".repeat(length)), expected, "{length}");
        }
        assert_eq!(count(&"é".repeat(160)), 1, "é is one of them");
        assert_eq!(count(&"€".repeat(80)), 1);
        assert_eq!(count(&"€".repeat(81)), 2, "an escape and the letter");
        // 153 is odd: the 77th escape does not fit whole.
        assert_eq!(count(&"€".repeat(153)), 3);
    }

    #[test]
    fn any_other_letter_makes_it_70_and_then_67() {
        for (length, expected) in [(1, 1), (70, 1), (71, 2), (134, 2), (135, 3)] {
            assert_eq!(count(&"ç".repeat(length)), expected, "{length}");
        }
        assert_eq!(count(&"😀".repeat(35)), 1);
        assert_eq!(count(&"😀".repeat(36)), 2, "two units each");
        assert_eq!(count(&"😀".repeat(67)), 3, "33 pairs in each");
        assert_eq!(count(&format!("{}я", "a".repeat(70))), 2);
    }
}
