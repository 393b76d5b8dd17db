//! `[presentation.brand]`: the name, colours and addresses that the shipped layout shows, and those of themes.
//!
//! Text must be readable on its background: a contrast of at least 4.5:1, which WCAG 2.2 asks for at level AA (1.4.3).

use std::fmt;

use super::reader::TableDecoder;
use super::tree::Node;
use super::values;

/// The least contrast of a text.
const CONTRAST_MIN: f64 = 4.5;
/// The background of the layout's card.
const CARD: Color = Color([0xff, 0xff, 0xff]);
/// The same on a dark screen.
const DARK_CARD: Color = Color([0x1a, 0x21, 0x2b]);
/// The layout's small print.
const SMALL_PRINT: Color = Color([0x56, 0x64, 0x75]);
/// The layout's own colours, for those that are not set.
const ACCENT: Color = Color([0x1f, 0x4f, 0xd8]);
const ON_ACCENT: Color = CARD;
const DARK_BUTTON: Color = Color([0x2f, 0x63, 0xe0]);
const DARK_ACCENT: Color = Color([0x5b, 0x8c, 0xff]);
const DARK_LINK: Color = Color([0x93, 0xb8, 0xff]);
const BACKGROUND: Color = Color([0xee, 0xf1, 0xf5]);

/// What the shipped layout shows of the sender.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Brand {
    /// Beside the logo, in the footer, and the sender's display name of new messages.
    pub name: Option<String>,
    /// Buttons, and the line above a mail.
    pub color: Option<Color>,
    /// Texts on `color`. White.
    pub on_color: Option<Color>,
    /// Links. `color`.
    pub link_color: Option<Color>,
    /// Around the mail.
    pub background: Option<Color>,
    /// The address of an image, 32 pixels high.
    pub logo_url: Option<String>,
    /// Where the logo or name leads.
    pub homepage_url: Option<String>,
    /// A line in the footer, in the default language.
    pub footer: Option<String>,
    /// The postal address, in the footer.
    pub address: Option<String>,
}

/// A colour: red, green and blue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Color([u8; 3]);

impl Brand {
    pub(super) fn read(s: &mut TableDecoder<'_>) -> Brand {
        Brand {
            name: s.get("name", values::line),
            color: s.get("color", Color::read),
            on_color: s.get("on-color", Color::read),
            link_color: s.get("link-color", Color::read),
            background: s.get("background", Color::read),
            logo_url: s.get("logo-url", values::line),
            homepage_url: s.get("homepage-url", |node| values::base_url(node).map(String::from)),
            footer: s.get("footer", values::line),
            address: s.get("address", values::line),
        }
    }

    /// This brand, with the values of another one where it has none.
    pub fn or(&self, other: &Brand) -> Brand {
        Brand {
            name: self.name.clone().or_else(|| other.name.clone()),
            color: self.color.or(other.color),
            on_color: self.on_color.or(other.on_color),
            // A colour for the links of another accent may not fit.
            link_color: self.link_color.or(other.link_color.filter(|_| self.color.is_none())),
            background: self.background.or(other.background),
            logo_url: self.logo_url.clone().or_else(|| other.logo_url.clone()),
            homepage_url: self.homepage_url.clone().or_else(|| other.homepage_url.clone()),
            footer: self.footer.clone().or_else(|| other.footer.clone()),
            address: self.address.clone().or_else(|| other.address.clone()),
        }
    }

    /// The key of a colour that is hard to read, and why.
    pub(super) fn unreadable(&self) -> Vec<(&'static str, String)> {
        let on = self.on_color.unwrap_or(ON_ACCENT);
        let link_key = if self.link_color.is_some() { "link-color" } else { "color" };
        let pairs = [
            ("color", "the text of buttons (on-color)", on, "color", self.accent()),
            (link_key, "links", self.link(), "the mail", CARD),
            ("background", "links in the footer", self.link(), "background", self.background()),
            ("background", "the footer", SMALL_PRINT, "background", self.background()),
        ];
        let wrong = pairs.into_iter().filter(|(_, _, text, _, behind)| text.contrast(*behind) < CONTRAST_MIN);
        let wrong = wrong.map(|(key, what, text, on, behind)| {
            let ratio = (text.contrast(behind) * 100.0).floor() / 100.0;
            let hint = match key {
                "color" if what == "links" => "; choose a darker color, or set link-color",
                _ => "",
            };
            let text =
                format!("{what} {text} on {on} {behind}: the contrast is {ratio}:1, and {CONTRAST_MIN}:1 is the least");
            (key, format!("{text} that is readable{hint}"))
        });
        // One problem for each key is enough.
        let mut found: Vec<(&str, String)> = Vec::new();
        wrong.for_each(|problem| {
            if !found.iter().any(|(key, _)| *key == problem.0) {
                found.push(problem);
            }
        });
        found
    }

    /// The value that templates get for a name; `None` for an unknown name. What is not set is empty, or the layout's own colour.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Some(match name {
            "name" => text(&self.name),
            "color" => self.accent().to_string(),
            "on-color" => self.on_color.unwrap_or(ON_ACCENT).to_string(),
            "link-color" => self.link().to_string(),
            "background" => self.background().to_string(),
            "dark-color" => self.color.unwrap_or(DARK_BUTTON).to_string(),
            "dark-accent" => self.color.map_or(DARK_ACCENT, |color| color.readable_on(DARK_CARD)).to_string(),
            "dark-link-color" => {
                self.link_color.or(self.color).map_or(DARK_LINK, |c| c.readable_on(DARK_CARD)).to_string()
            }
            "logo-url" => text(&self.logo_url),
            "homepage-url" => text(&self.homepage_url),
            "footer" => text(&self.footer),
            "address" => text(&self.address),
            _ => return None,
        })
    }

    fn accent(&self) -> Color {
        self.color.unwrap_or(ACCENT)
    }

    fn link(&self) -> Color {
        self.link_color.unwrap_or(self.accent())
    }

    fn background(&self) -> Color {
        self.background.unwrap_or(BACKGROUND)
    }
}

impl Color {
    /// Reads `#1f4fd8` or `#14d`.
    fn read(node: &Node) -> Result<Color, String> {
        let text = values::line(node)?;
        let digits = text.strip_prefix('#').filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let digits = match digits {
            Some(three) if three.len() == 3 => three.chars().flat_map(|digit| [digit, digit]).collect(),
            Some(six) if six.len() == 6 => six.to_owned(),
            _ => return Err(format!("must be a colour, as in \"#1f4fd8\" or \"#14d\", not {text:?}")),
        };
        let part = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or_default();
        Ok(Color([part(0), part(2), part(4)]))
    }

    /// WCAG's contrast ratio, from 1 to 21.
    fn contrast(self, other: Color) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// WCAG's relative luminance.
    fn luminance(self) -> f64 {
        let linear = |part: u8| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        let Color([red, green, blue]) = self;
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    }

    /// The nearest lighter shade that is readable on a dark background.
    fn readable_on(self, dark: Color) -> Color {
        let lighter = |percent: u32| {
            let Color(parts) = self;
            Color(parts.map(|part| (u32::from(part) + (255 - u32::from(part)) * percent / 100) as u8))
        };
        (0..=100).map(lighter).find(|color| color.contrast(dark) >= CONTRAST_MIN).unwrap_or(CARD)
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Color([red, green, blue]) = self;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

impl fmt::Debug for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLACK: Color = Color([0; 3]);

    #[test]
    fn contrasts_are_those_of_wcag() {
        assert_eq!(BLACK.contrast(CARD), 21.0);
        let ratio = |digits: [u8; 3]| format!("{:.2}", Color(digits).contrast(CARD));
        assert_eq!([ratio([0x76; 3]), ratio([0x77; 3])], ["4.54", "4.48"]);
    }

    #[test]
    fn the_layouts_own_colours_are_readable() {
        assert_eq!(Brand::default().unreadable(), []);
        assert_eq!(Brand::default().value("color").as_deref(), Some("#1f4fd8"));
        assert_eq!(Brand::default().value("colour"), None);
    }

    #[test]
    fn links_are_readable_on_a_dark_screen_whatever_their_colour() {
        for color in [BLACK, ACCENT, Color([0x80, 0, 0]), CARD] {
            assert!(color.readable_on(DARK_CARD).contrast(DARK_CARD) >= CONTRAST_MIN, "{color}");
        }
    }
}
