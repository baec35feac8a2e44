//! The parts of a PC that every guest expects, at the addresses where PCs have them.
//!
//! | ports       | part                                        | interrupt |
//! |-------------|---------------------------------------------|-----------|
//! | 0x20.. 0xa0 | interrupt controllers                       | in KVM    |
//! | 0x40.. 0x61 | interval timer, its gate and speaker        | 0, in KVM |
//! | 0x60, 0x64  | [`i8042`]: keyboard controller and reset    | 1         |
//! | 0x70, 0x71  | [`cmos_rtc`]: clock and CMOS RAM            | 8         |
//! | 0x80        | progress marks ([`crate::timeline`])        |           |
//! | 0x2e8, 0x2f8, 0x3e8, 0x3f8 | [`uart`]: COM4, 2, 3, 1      | 3, 4      |
//! | 0x600..0x60c| [`acpi_pm`]: power management                | 9         |
//! | 0xcf9       | [`reset`]: reset control                    |           |

pub mod acpi_pm;
pub mod cmos_rtc;
pub mod i8042;
pub mod reset;
pub mod serial_io;
pub mod uart;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kvm_ioctls::VmFd;

use self::acpi_pm::{AcpiPm, PmModel, PowerButton};
use self::cmos_rtc::CmosRtc;
use self::i8042::I8042;
use self::reset::ResetControl;
use self::serial_io::SerialIo;
use self::uart::UartPorts;
use crate::backend::serial_port::SerialPort;
use crate::bus::{Bus, BusError};
use crate::control::Control;
use crate::irq::SharedWire;
use crate::kvm::interrupt_line;
use crate::timeline::{MarkerPort, Recorder};

/// What the rest of the machine needs of the chipset.
pub struct Chipset {
    /// Moves bytes between the serial ports and the host.
    pub serial_io: SerialIo,
    /// The power button, for whoever presses it from outside the guest.
    pub power_button: PowerButton,
}

/// A chipset that cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum ChipsetError {
    /// An address is taken already.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The host is out of file descriptors or threads.
    #[error("cannot make the serial ports")]
    Serial(#[from] std::io::Error),
}

/// Puts the chipset on the port bus.
///
/// # Errors
/// [`ChipsetError`].
pub fn build(
    ports: &Bus,
    vm: &Arc<VmFd>,
    power_management: PmModel,
    serial: [Option<SerialPort>; 4],
    control: &Control,
    recorder: &Recorder,
) -> Result<Chipset, ChipsetError> {
    let mut serial_io = SerialIo::new()?;
    let mut wires = BTreeMap::new();
    for (port, place) in serial.into_iter().zip(uart::COM) {
        let Some(port) = port else { continue };
        let wire = wires
            .entry(place.irq)
            .or_insert_with(|| SharedWire::new(interrupt_line(vm, place.irq)));
        let line = wire.driver();
        let uart = serial_io.add(place.name, port, line)?;
        let registers = Arc::new(Mutex::new(UartPorts(uart)));
        ports.insert(place.name, place.port.into(), uart::PORTS, registers)?;
    }

    let keyboard = interrupt_line(vm, i8042::IRQ);
    let i8042 = Arc::new(Mutex::new(I8042::new(keyboard, control.clone())));
    ports.insert("i8042", i8042::DATA_PORT.into(), 1, i8042.clone())?;
    ports.insert(
        "i8042",
        i8042::COMMAND_PORT.into(),
        1,
        Arc::new(Mutex::new(i8042::CommandPort(i8042))),
    )?;

    let rtc = CmosRtc::new(interrupt_line(vm, cmos_rtc::IRQ));
    ports.insert("rtc", cmos_rtc::PORT.into(), 2, Arc::new(Mutex::new(rtc)))?;
    ports.insert("post", 0x80, 1, Arc::new(Mutex::new(MarkerPort(recorder.clone()))))?;

    let pm = AcpiPm::new(interrupt_line(vm, acpi_pm::SCI), control.clone(), power_management);
    let pm = Arc::new(Mutex::new(pm));
    ports.insert("acpi-pm", acpi_pm::PORT.into(), acpi_pm::PORTS, pm.clone())?;
    let reset = Arc::new(Mutex::new(ResetControl::new(control.clone())));
    ports.insert("reset", reset::PORT.into(), 1, reset)?;
    Ok(Chipset { serial_io, power_button: PowerButton(pm) })
}
