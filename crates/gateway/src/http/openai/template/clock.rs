//! The date and time as templates write them into a prompt: `strftime`, in UTC.

use std::time::{Duration, SystemTime};

use minijinja::{Error, ErrorKind};

const SECONDS_A_DAY: u64 = 24 * 60 * 60;

const DAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The time now in this format.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    strftime(elapsed.unwrap_or(Duration::ZERO).as_secs(), format)
}

/// The time so many seconds after 1970 began, in this format.
fn strftime(seconds: u64, format: &str) -> Result<String, Error> {
    let (days, second) = (seconds / SECONDS_A_DAY, seconds % SECONDS_A_DAY);
    let (year, day_of_year) = year_of(days);
    let (month, day) = month_of(year, day_of_year);
    let weekday = DAYS[(days % 7) as usize];
    let name = MONTHS[month];
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let part = match characters.next() {
            Some('Y') => year.to_string(),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{:02}", month + 1),
            Some('B') => name.to_owned(),
            Some('b') => name[..3].to_owned(),
            Some('d') => format!("{day:02}"),
            Some('j') => format!("{:03}", day_of_year + 1),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('H') => format!("{hour:02}"),
            Some('M') => format!("{minute:02}"),
            Some('S') => format!("{:02}", second % 60),
            Some('%') => "%".to_owned(),
            _ => {
                let text = "strftime_now knows %Y %y %m %B %b %d %j %A %a %H %M %S";
                return Err(Error::new(ErrorKind::InvalidOperation, text));
            }
        };
        text += &part;
    }
    Ok(text)
}

/// The year of a day after 1970 began, and which of its days it is, from 0.
fn year_of(mut day: u64) -> (u64, u64) {
    let mut year = 1970;
    while day >= days_of(year) {
        day -= days_of(year);
        year += 1;
    }
    (year, day)
}

/// The month of a day of a year, from 0, and which of its days it is, from 1.
fn month_of(year: u64, mut day: u64) -> (usize, u64) {
    let february = if days_of(year) == 366 { 29 } else { 28 };
    let mut month = 0;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (month, day + 1)
}

fn days_of(year: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if is_leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_strftime_writes_it() {
        let format = "%A %a %d %b %B %Y %y-%m %j %H:%M:%S 100%%";
        for (seconds, expected) in [
            (0, "Thursday Thu 01 Jan January 1970 70-01 001 00:00:00 100%"),
            (1_709_210_096, "Thursday Thu 29 Feb February 2024 24-02 060 12:34:56 100%"),
            (4_102_444_799, "Thursday Thu 31 Dec December 2099 99-12 365 23:59:59 100%"),
        ] {
            assert_eq!(strftime(seconds, format).unwrap(), expected);
        }
        assert!(strftime(0, "%Q").is_err());
    }
}
