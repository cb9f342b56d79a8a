//! The inputs that tell a backend about the sequence of each row.

use bytes::Bytes;
use consort_config::{Control, ControlKind, Flag};
use consort_stage::{CorrelationId, DataType, Error, Result, Tensor, encode_strings};

/// The control inputs of a model.
#[derive(Debug)]
pub(super) struct Controls {
    controls: Vec<Control>,
    /// The shape of one row of each: `[1]` behind the batch dimension, where there is one.
    shape: Vec<i64>,
}

/// What a row is told: all false, and no id, where it holds no request.
#[derive(Debug, Default)]
pub(super) struct Told<'a> {
    pub(super) is_start: bool,
    pub(super) is_ready: bool,
    pub(super) is_end: bool,
    pub(super) id: Option<&'a CorrelationId>,
}

impl Controls {
    pub(super) fn new(controls: Vec<Control>, is_batching: bool) -> Self {
        Self { controls, shape: vec![1; if is_batching { 2 } else { 1 }] }
    }

    /// Refuses an id that a control input cannot hold.
    pub(super) fn check(&self, id: &CorrelationId) -> Result<()> {
        for control in &self.controls {
            if let ControlKind::CorrelationId(datatype) = control.kind
                && encode(Some(id), datatype).is_none()
            {
                return Err(Error::invalid(format!(
                    "correlation ID {} does not fit control input `{}` of {}",
                    shown(id),
                    control.input,
                    datatype.config_name()
                )));
            }
        }
        Ok(())
    }

    /// The control inputs of one row.
    pub(super) fn tensors(&self, told: &Told<'_>) -> impl Iterator<Item = Tensor> {
        self.controls.iter().map(|control| {
            let (datatype, data) = match control.kind {
                ControlKind::Start(flag) => value(flag, told.is_start),
                ControlKind::Ready(flag) => value(flag, told.is_ready),
                ControlKind::End(flag) => value(flag, told.is_end),
                ControlKind::CorrelationId(datatype) => {
                    (datatype, encode(told.id, datatype).unwrap_or_default())
                }
            };
            Tensor { name: control.input.clone(), datatype, shape: self.shape.clone(), data }
        })
    }
}

/// The id as callers know it.
pub(super) fn shown(id: &CorrelationId) -> String {
    match id {
        CorrelationId::Number(number) => number.to_string(),
        CorrelationId::Text(text) => text.to_string(),
    }
}

fn value(flag: Flag, is_true: bool) -> (DataType, Bytes) {
    let index = usize::from(is_true);
    match flag {
        Flag::Int32(values) => (DataType::Int32, values[index].to_le_bytes().to_vec().into()),
        Flag::Fp32(values) => (DataType::Fp32, values[index].to_le_bytes().to_vec().into()),
        Flag::Bool(values) => (DataType::Bool, vec![u8::from(values[index])].into()),
    }
}

/// The id as an element of this type; nobody's is zero or empty, and `None` means it does not fit.
fn encode(id: Option<&CorrelationId>, datatype: DataType) -> Option<Bytes> {
    if datatype == DataType::Bytes {
        return Some(encode_strings(&[id.map(shown).unwrap_or_default()]));
    }
    let number = match id {
        None => 0,
        Some(CorrelationId::Number(number)) => *number,
        Some(CorrelationId::Text(_)) => return None,
    };
    Some(match datatype {
        DataType::Uint64 => number.to_le_bytes().to_vec().into(),
        DataType::Int64 => i64::try_from(number).ok()?.to_le_bytes().to_vec().into(),
        DataType::Uint32 => u32::try_from(number).ok()?.to_le_bytes().to_vec().into(),
        DataType::Int32 => i32::try_from(number).ok()?.to_le_bytes().to_vec().into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls(kind: ControlKind) -> Controls {
        Controls::new(vec![Control { input: "control".into(), kind }], true)
    }

    fn tensor(kind: ControlKind, told: &Told<'_>) -> Tensor {
        let tensor = controls(kind).tensors(told).next().unwrap();
        tensor.check().unwrap();
        assert_eq!(tensor.shape, [1, 1]);
        tensor
    }

    #[test]
    fn a_flag_is_shown_by_the_values_that_stand_for_it() {
        let start = Told { is_start: true, ..Told::default() };
        let flag = tensor(ControlKind::Start(Flag::Fp32([-1.0, 2.0])), &start);
        assert_eq!(&*flag.to_slice::<f32>().unwrap(), [2.0]);
        let flag = tensor(ControlKind::End(Flag::Int32([5, 6])), &start);
        assert_eq!(&*flag.to_slice::<i32>().unwrap(), [5]);
        let flag = tensor(ControlKind::Ready(Flag::Bool([true, false])), &start);
        assert_eq!(flag.to_bools().unwrap(), [true]);
    }

    #[test]
    fn an_id_is_given_in_the_type_that_the_model_wants() {
        let id = CorrelationId::Number(7);
        let told = Told { id: Some(&id), ..Told::default() };
        let number = tensor(ControlKind::CorrelationId(DataType::Int32), &told);
        assert_eq!(&*number.to_slice::<i32>().unwrap(), [7]);
        let text = tensor(ControlKind::CorrelationId(DataType::Bytes), &told);
        assert_eq!(text.to_strings().unwrap(), [b"7"]);
        let nobody = tensor(ControlKind::CorrelationId(DataType::Uint64), &Told::default());
        assert_eq!(&*nobody.to_slice::<u64>().unwrap(), [0]);
    }

    #[test]
    fn an_id_that_does_not_fit_is_refused_by_name() {
        let large = CorrelationId::Number(1 << 40);
        let error = controls(ControlKind::CorrelationId(DataType::Uint32)).check(&large);
        assert_eq!(
            error.unwrap_err().message(),
            "correlation ID 1099511627776 does not fit control input `control` of TYPE_UINT32"
        );
        let text = CorrelationId::Text("a".into());
        let number = controls(ControlKind::CorrelationId(DataType::Uint64));
        assert!(number.check(&text).is_err());
        assert!(number.check(&large).is_ok());
    }
}
