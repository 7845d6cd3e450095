//! From words to what is carried out: names are looked up, contradictions refused.

use device_server::LunAddress;
use scsi::{FieldPointer, Sense, SenseFormat, sense::SenseKeySpecific};
use scsi_fault::{Effect, Hold, Rule, When};

use super::{
    AnswerFault, Condition, Conduct, SenseAnswer, Wait,
    condition::{CommandCondition, What},
    names,
};
use crate::wire::CDB_SIZE;

/// Longest delay in microseconds: an hour.
const DELAY_MAX_US: u64 = 3_600_000_000;
/// Most commands that are ordered among each other.
const ORDER_LEN_MAX: usize = 4096;
/// Most rules of a logical unit.
const RULES_MAX: usize = 1024;

/// CHECK CONDITION (SAM, Status codes).
const CHECK_CONDITION: u8 = scsi::Status::CheckCondition as u8;

/// Why a rule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleProblem {
    /// The list makes no sense.
    #[error(transparent)]
    List(#[from] fault::RuleError),
    /// There are too many.
    #[error("{0} rules are more than the {RULES_MAX} a logical unit takes")]
    TooMany(usize),
    /// One of them makes no sense.
    #[error("rule `{rule}`: {problem}")]
    Rule {
        /// Its name.
        rule: String,
        /// What is wrong.
        problem: String,
    },
}

type CompiledRule = fault::Rule<Condition, Conduct>;

/// Most entries of the used ring for one command.
const USED_TIMES_MAX: u16 = 256;

/// The rules as they are carried out at one unit; `hostile` says whether they may do what no device may do. Rules about other units stay, without an event that
/// matches, because others may come after them.
pub(crate) fn compile(
    rules: &[Rule],
    at: LunAddress,
    hostile: bool,
) -> Result<Vec<CompiledRule>, RuleProblem> {
    if rules.len() > RULES_MAX {
        return Err(RuleProblem::TooMany(rules.len()));
    }
    fault::check(rules)?;
    let compiled = rules.iter().map(|rule| {
        compile_one(rule, at, hostile)
            .map_err(|problem| RuleProblem::Rule { rule: rule.name.clone(), problem })
    });
    compiled.collect()
}

fn compile_one(rule: &Rule, at: LunAddress, hostile: bool) -> Result<CompiledRule, String> {
    if rule.effect.hostile.is_some() && !hostile {
        return Err("`hostile` needs --hostile, with which the daemon has to be started".into());
    }
    let about_tasks = rule.when.task_management.is_some();
    Ok(CompiledRule {
        name: rule.name.clone(),
        when: condition(&rule.when, at)?,
        effect: conduct(&rule.effect, about_tasks)?,
        times: rule.times,
        nth: rule.nth,
        after: rule.after.clone(),
    })
}

fn condition(when: &When, at: LunAddress) -> Result<Condition, String> {
    let what = match &when.task_management {
        None => What::Command(Box::new(command_condition(when)?)),
        Some(function) => {
            let command_only = [
                ("command", when.command.is_some()),
                ("service-action", when.service_action.is_some()),
                ("cdb", when.cdb.is_some()),
                ("lba", when.lba.is_some()),
                ("direction", when.direction.is_some()),
            ];
            if let Some((key, _)) = command_only.iter().find(|(_, said)| *said) {
                return Err(format!("a task management function has no `{key}`"));
            }
            What::TaskManagement(names::function(function)?)
        }
    };
    Ok(Condition { here: Condition::is_here(when, at), nexus: when.nexus, what })
}

fn command_condition(when: &When) -> Result<CommandCondition, String> {
    let (opcode, action_of_name) = match &when.command {
        None => (None, None),
        Some(command) => {
            let (opcode, action) = names::command(command)?;
            (Some(opcode), action)
        }
    };
    if let (Some(of_name), Some(given)) = (action_of_name, when.service_action)
        && of_name != given
    {
        return Err(format!("the command's service action is {of_name:#x}, not {given:#x}"));
    }
    let bytes = match &when.cdb {
        None => Vec::new(),
        Some(cdb) => {
            let value = names::bytes("`cdb.value`", &cdb.value)?;
            let mask = names::bytes("`cdb.mask`", &cdb.mask)?;
            if value.len() > CDB_SIZE || mask.len() > value.len() {
                return Err(format!(
                    "`cdb` has {} bytes and a mask of {}; at most {CDB_SIZE} go, and no more mask than value",
                    value.len(),
                    mask.len()
                ));
            }
            let masks = mask.into_iter().chain(std::iter::repeat(0xff));
            value.into_iter().zip(masks).collect()
        }
    };
    if let Some(range) = when.lba
        && range.first > range.last
    {
        return Err(format!("`lba` begins at {} and ends at {}", range.first, range.last));
    }
    let service_action = when.service_action.or(action_of_name);
    Ok(CommandCondition { opcode, service_action, bytes, lba: when.lba, direction: when.direction })
}

fn conduct(effect: &Effect, about_tasks: bool) -> Result<Conduct, String> {
    if *effect == Effect::default() {
        return Err("the effect is nothing".into());
    }
    let of_commands = [
        ("data-in", effect.data_in.is_some()),
        ("data-out-limit", effect.data_out_limit.is_some()),
        ("write", effect.write.is_some()),
        ("status", effect.status.is_some()),
        ("status-qualifier", effect.status_qualifier.is_some()),
        ("sense", effect.sense.is_some()),
        ("residual", effect.residual.is_some()),
        ("vanish", effect.vanish),
        ("drop-socket", effect.drop_socket),
        ("hostile", effect.hostile.is_some()),
    ];
    if about_tasks && let Some((key, _)) = of_commands.iter().find(|(_, said)| *said) {
        return Err(format!("a task management function has no `{key}`"));
    }
    let of_execution = &of_commands[..3];
    if !effect.executes()
        && let Some((key, _)) = of_execution.iter().find(|(_, said)| *said)
    {
        return Err(format!(
            "`{key}` says how it is executed, but it is answered without; say `execute = true`"
        ));
    }
    if effect.hostile.and_then(|hostile| hostile.used_times) > Some(USED_TIMES_MAX) {
        return Err(format!("`used-times` above {USED_TIMES_MAX}"));
    }
    if effect.data_out_limit.is_some() && effect.write.is_some() {
        return Err("`data-out-limit` and `write` both say what is written".into());
    }
    Ok(Conduct {
        wait: wait(effect)?,
        execute: effect.executes(),
        data_in: effect.data_in,
        data_out_limit: effect.data_out_limit,
        write: effect.write,
        answer: answer(effect)?,
        vanish: effect.vanish,
        drop_socket: effect.drop_socket,
        hostile: effect.hostile,
        die: effect.die,
    })
}

fn wait(effect: &Effect) -> Result<Option<Wait>, String> {
    let delay = match (effect.delay_us, effect.delay_up_to_us) {
        (None, None) => None,
        (from, to) => {
            let from = from.unwrap_or(0);
            let to = to.unwrap_or(from);
            if from > to || to > DELAY_MAX_US {
                return Err(format!(
                    "a delay from {from} to {to} µs; it has to grow, and {DELAY_MAX_US} is the most"
                ));
            }
            Some(Wait::Delay { from, to })
        }
    };
    let hold = match &effect.hold {
        None => None,
        Some(Hold::UntilReleased) => Some(Wait::UntilReleased),
        Some(Hold::ForEver) => Some(Wait::ForEver),
        Some(Hold::Order(order)) if is_permutation(order) => Some(Wait::Order(order.clone())),
        Some(Hold::Order(order)) => {
            return Err(format!(
                "`order` has to name each position from 0 to {} once, at most {ORDER_LEN_MAX}",
                order.len().saturating_sub(1)
            ));
        }
    };
    if delay.is_some() && hold.is_some() {
        return Err("it cannot wait both for a time and for something to happen".into());
    }
    Ok(delay.or(hold))
}

/// Whether each position below the length is named once.
pub(crate) fn is_permutation(order: &[u32]) -> bool {
    if order.is_empty() || order.len() > ORDER_LEN_MAX {
        return false;
    }
    let mut named = vec![false; order.len()];
    order.iter().all(|position| {
        usize::try_from(*position)
            .ok()
            .and_then(|position| named.get_mut(position))
            .is_some_and(|named| !std::mem::replace(named, true))
    })
}

fn answer(effect: &Effect) -> Result<AnswerFault, String> {
    let sense = effect.sense.as_ref().map(sense).transpose()?;
    let status = effect.status.as_ref().map(names::status).transpose()?;
    let of_sense = sense.is_some().then_some(CHECK_CONDITION);
    Ok(AnswerFault {
        status: status.or(of_sense),
        status_qualifier: effect.status_qualifier,
        sense,
        residual: effect.residual,
        response: effect.response.as_ref().map(names::response).transpose()?,
    })
}

fn sense(words: &scsi_fault::Sense) -> Result<SenseAnswer, String> {
    if let Some(raw) = &words.raw {
        let alone = scsi_fault::Sense { raw: words.raw.clone(), ..scsi_fault::Sense::default() };
        if *words != alone {
            return Err("`sense.raw` says it all: no other key goes with it".into());
        }
        return names::bytes("`sense.raw`", raw).map(SenseAnswer::Raw);
    }
    let mut sense = match (&words.name, &words.key, words.asc, words.ascq) {
        (Some(name), key, None, None) => {
            let of_name = names::sense(name)?;
            match key {
                None => of_name,
                Some(key) => Sense { key: names::sense_key(key)?, ..of_name },
            }
        }
        (None, Some(key), Some(asc), Some(ascq)) => Sense::new(names::sense_key(key)?, asc, ascq),
        _ => return Err("`sense` needs `name`, or `key`, `asc` and `ascq`, or `raw`".into()),
    };
    sense.deferred = words.deferred;
    sense.information = words.information;
    sense.command_specific = words.command_specific;
    sense.specific = specific(words)?;
    let format = words.format.map(|format| match format {
        scsi_fault::SenseFormat::Fixed => SenseFormat::Fixed,
        scsi_fault::SenseFormat::Descriptor => SenseFormat::Descriptor,
    });
    Ok(SenseAnswer::Coded { sense, format, truncate: words.truncate })
}

fn specific(words: &scsi_fault::Sense) -> Result<Option<SenseKeySpecific>, String> {
    let pointer = words.field_pointer.map(|pointer| {
        SenseKeySpecific::FieldPointer(FieldPointer {
            in_cdb: !pointer.in_data,
            byte: pointer.byte,
            bit: pointer.bit.map(|bit| bit & 7),
        })
    });
    let progress = words.progress.map(SenseKeySpecific::Progress);
    let retries = words.retry_count.map(SenseKeySpecific::RetryCount);
    let mut said = [pointer, progress, retries].into_iter().flatten();
    let first = said.next();
    if said.next().is_some() {
        return Err(
            "only one of `field-pointer`, `progress` and `retry-count` fits sense data".into()
        );
    }
    Ok(first)
}
