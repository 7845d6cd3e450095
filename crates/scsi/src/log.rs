//! Log pages (SPC, Log parameters).

/// PAGE CODE of the pages known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LogPage {
    /// Supported Log Pages.
    SupportedPages = 0x00,
    /// Temperature.
    Temperature = 0x0d,
    /// Informational Exceptions.
    InformationalExceptions = 0x2f,
}

impl LogPage {
    /// Every page, in order of page code.
    pub const ALL: [LogPage; 3] =
        [LogPage::SupportedPages, LogPage::Temperature, LogPage::InformationalExceptions];

    /// The page with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|page| page.code() == code)
    }

    /// PAGE CODE.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// PAGE CODE in byte 2 of LOG SENSE; PC is above.
pub const PAGE_CODE: u8 = 0x3f;

/// DS: the parameters are not saved.
const NOT_SAVED: u8 = 0x80;
/// TSD, and FORMAT AND LINKING 11b: a list in binary that is not saved.
const BINARY_LIST: u8 = 0x23;

/// A log parameter: PARAMETER CODE and value.
pub type LogParameter<'a> = (u16, &'a [u8]);

/// A page of parameters, those with codes from `pointer` on. `None` if there are none.
#[must_use]
pub fn page_data(page: LogPage, parameters: &[LogParameter<'_>], pointer: u16) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    for (code, value) in parameters.iter().filter(|(code, _)| *code >= pointer) {
        let len = u8::try_from(value.len()).expect("a parameter is short");
        body.extend_from_slice(&code.to_be_bytes());
        body.extend_from_slice(&[BINARY_LIST, len]);
        body.extend_from_slice(value);
    }
    (!body.is_empty()).then(|| with_header(NOT_SAVED | page.code(), &body))
}

/// The Supported Log Pages page.
#[must_use]
pub fn supported_pages_data() -> Vec<u8> {
    with_header(LogPage::SupportedPages.code(), &LogPage::ALL.map(LogPage::code))
}

/// DS with PAGE CODE, SUBPAGE CODE 00h, PAGE LENGTH, and what that counts.
fn with_header(page: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(body.len()).expect("a page is short").to_be_bytes();
    [&[page, 0, high, low], body].concat()
}
