//! The register file: what reads and writes of the driver do at once, under one short lock.

use std::time::Instant;

use vmm_sys_util::timerfd::TimerFd;

use super::eeprom::Eeprom;
use super::filter::Filter;
use super::interrupts::Interrupts;
use super::phy::Phy;
use super::registers::{RAH_AV, Store, cause, ctrl, offset, rctl, status, tctl};
use super::ring::Ring;
use super::rx::{ReceiveReport, ReceiveView};
use super::tx::{TransmitReport, TransmitView};
use crate::irq::IrqLine;

/// What a write asks of the threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// There are descriptors to transmit and the transmitter sleeps.
    pub wake_transmitter: bool,
    /// The receiver waits for what was written.
    pub wake_receiver: bool,
}

/// All registers and the units behind them, except the rings' engines.
pub struct Registers {
    store: Store,
    eeprom: Eeprom,
    phy: Phy,
    interrupts: Interrupts,
    timer: Option<TimerFd>,
    /// Counts changes of the filter registers, for the receiver's copy.
    filter_version: u64,
    /// The transmitter found nothing to do and sleeps.
    pub transmitter_idle: bool,
    /// The receiver does not look at the host until descriptors come.
    pub receiver_starved: bool,
    /// Frames were stored that the driver has not been told of.
    frames_untold: bool,
    /// The threads are to end.
    pub stop: bool,
}

impl Registers {
    /// After power-on. `timer` expires when [`Registers::tick`] is to be called; without one the
    /// caller watches [`Interrupts::deadline`] itself.
    pub fn new(mac: [u8; 6], line: IrqLine, timer: Option<TimerFd>) -> Self {
        let mut registers = Self {
            store: Store::new(),
            eeprom: Eeprom::new(mac),
            phy: Phy::new(),
            interrupts: Interrupts::new(line),
            timer,
            filter_version: 0,
            transmitter_idle: true,
            receiver_starved: false,
            frames_untold: false,
            stop: false,
        };
        registers.reset();
        registers
    }

    /// What CTRL.RST does. The link is not touched: the transceiver has its own reset.
    pub fn reset(&mut self) {
        self.store = Store::new();
        self.interrupts.reset();
        self.filter_version += 1;
        self.frames_untold = false;
        let [a, b, c, d, e, f] = self.eeprom.mac();
        self.store.set(offset::RAL, u32::from_le_bytes([a, b, c, d]));
        self.store.set(offset::RAL + 4, RAH_AV | u32::from(u16::from_le_bytes([e, f])));
        self.arm_timer();
    }

    /// A reset of the machine: the transceiver too.
    pub fn power_on(&mut self) {
        self.phy.reset();
        self.reset();
    }

    /// Whether this write must not happen while the transmitter or receiver works: it takes rings
    /// away from them.
    pub fn needs_quiet(&self, at: u32, value: u32) -> bool {
        let falls = |bit: u32| self.store.get(at) & !value & bit != 0;
        match at {
            offset::CTRL => value & ctrl::RST != 0,
            offset::TCTL => falls(tctl::EN),
            offset::RCTL => falls(rctl::EN),
            _ => false,
        }
    }

    /// The driver reads the register at `at`, a multiple of 4.
    pub fn read(&mut self, at: u32) -> u32 {
        match at {
            offset::STATUS => self.status(),
            offset::EECD => self.eeprom.read_control(),
            offset::ICR => self.now(Interrupts::take_causes),
            offset::IMS => self.interrupts.mask(),
            offset::ICS | offset::IMC => 0,
            offset::RXCW => 0,
            offset::STATISTICS..offset::STATISTICS_END => self.store.take_statistic(at),
            _ => self.store.get(at),
        }
    }

    fn status(&self) -> u32 {
        let link = if self.link() { status::LU } else { 0 };
        status::FD | status::SPEED_1000 | status::ASDV_1000 | link
    }

    fn link(&self) -> bool {
        self.phy.link() && self.store.get(offset::CTRL) & ctrl::SLU != 0
    }

    /// The driver writes the register at `at`, a multiple of 4.
    pub fn write(&mut self, at: u32, value: u32) -> Effects {
        let mut effects = Effects::default();
        match at {
            offset::CTRL => self.write_control(value),
            offset::EECD => self.eeprom.write_control(value),
            offset::EERD => self.store.set(at, self.eeprom.read_register(value)),
            offset::MDIC => self.access_phy(value),
            offset::ICR => self.now(|i, now| i.clear_causes(value, now)),
            offset::ICS => self.now(|i, now| i.set(value, now)),
            offset::IMS => self.now(|i, now| i.unmask(value, now)),
            offset::IMC => self.now(|i, now| i.mask_off(value, now)),
            offset::ITR => {
                self.interrupts.set_interval(value);
                self.store.write_plain(at, value);
            }
            _ => self.store.write_plain(at, value),
        }
        match at {
            offset::RCTL | offset::MTA..offset::RA_END | offset::VFTA..offset::VFTA_END => {
                self.filter_version += 1;
            }
            _ => {}
        }
        if matches!(at, offset::TDT | offset::TCTL | offset::CTRL) && self.transmitter_idle {
            effects.wake_transmitter = self.transmit_view().is_some();
            self.transmitter_idle = !effects.wake_transmitter;
        }
        if matches!(at, offset::RDT | offset::RCTL | offset::CTRL) && self.receiver_starved {
            self.receiver_starved = false;
            effects.wake_receiver = true;
        }
        effects
    }

    fn write_control(&mut self, value: u32) {
        if value & ctrl::PHY_RST != 0 {
            self.phy.reset();
        }
        if value & ctrl::RST != 0 {
            return self.reset();
        }
        let before = self.link();
        self.store.set(offset::CTRL, value & !ctrl::PHY_RST);
        self.link_may_have_changed(before);
    }

    fn access_phy(&mut self, value: u32) {
        let before = self.link();
        let (result, interrupt) = self.phy.access(value);
        self.store.set(offset::MDIC, result);
        if interrupt {
            self.now(|i, now| i.set(cause::MDAC, now));
        }
        self.link_may_have_changed(before);
    }

    /// Plugs the cable in or out.
    pub fn set_carrier(&mut self, carrier: bool) -> Effects {
        let before = self.link();
        self.phy.set_carrier(carrier);
        self.link_may_have_changed(before);
        let wake_transmitter = self.transmitter_idle && self.transmit_view().is_some();
        Effects { wake_transmitter, wake_receiver: false }
    }

    fn link_may_have_changed(&mut self, before: bool) {
        if self.link() != before {
            self.now(|i, now| i.set(cause::LSC, now));
        }
    }

    /// The timer of delayed interrupts has expired.
    pub fn tick(&mut self) {
        self.now(Interrupts::update);
        // Also when nothing changed: it is setting the timer that takes its expiry back.
        self.arm_timer();
    }

    /// Does something with the interrupt unit, and sees to its timer.
    fn now<T>(&mut self, action: impl FnOnce(&mut Interrupts, Instant) -> T) -> T {
        let before = self.interrupts.deadline();
        let result = action(&mut self.interrupts, Instant::now());
        if self.interrupts.deadline() != before {
            self.arm_timer();
        }
        result
    }

    fn arm_timer(&mut self) {
        let Some(timer) = &mut self.timer else { return };
        // Setting a timer with valid times cannot fail; were it to, the next event would interrupt.
        let _ = match self.interrupts.deadline() {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // Zero would disarm.
                timer.reset(left.max(std::time::Duration::from_nanos(1)), None)
            }
            None => timer.clear(),
        };
    }

    /// What the transmitter needs, or `None` when there is nothing to transmit.
    pub fn transmit_view(&self) -> Option<TransmitView> {
        let control = self.store.get(offset::TCTL);
        if control & tctl::EN == 0 || !self.link() || self.stop {
            return None;
        }
        let ring = Ring::transmit(&self.store).filter(|ring| ring.available() > 0)?;
        let tags = self.store.get(offset::CTRL) & ctrl::VME != 0;
        let vlan_type = tags.then(|| self.store.get(offset::VET) as u16);
        Some(TransmitView { ring, pad: control & tctl::PSP != 0, vlan_type })
    }

    /// Whether reception is on; while it is off, frames are thrown away.
    pub fn receiving(&self) -> bool {
        self.store.get(offset::RCTL) & rctl::EN != 0 && self.link()
    }

    /// What the receiver needs; `None` when the ring makes no sense.
    pub fn receive_view(&self) -> Option<ReceiveView> {
        ReceiveView::from_registers(&self.store)
    }

    /// Brings the receiver's copy of the filter up to date.
    pub fn refresh_filter(&self, copy: &mut (u64, Filter)) {
        if copy.0 != self.filter_version {
            *copy = (self.filter_version, Filter::from_registers(&self.store));
        }
    }

    /// A copy of the filter, with its version.
    pub fn filter(&self) -> (u64, Filter) {
        (self.filter_version, Filter::from_registers(&self.store))
    }

    /// The transmitter did a batch.
    pub fn transmitted(&mut self, report: TransmitReport) {
        let store = &mut self.store;
        store.set(offset::TDH, report.head);
        for at in [0x4080, 0x40d4] {
            store.count(at, report.frames); // good, total
        }
        for at in [0x4090, 0x40c8] {
            store.count_octets(at, report.octets);
        }
        store.count(0x40f0, report.multicasts);
        store.count(0x40f4, report.broadcasts);
        store.count(0x40f8, report.segmented);
        let (packet, absolute) = (store.get(offset::TIDV), store.get(offset::TADV));
        let empty = Ring::transmit(store).is_some_and(|ring| ring.available() == 0);
        let mut causes = if empty { cause::TXQE } else { 0 };
        if report.interrupt {
            causes |= cause::TXDW;
        }
        self.now(|interrupts, now| {
            if report.delayed && !report.interrupt {
                interrupts.transmitted(packet, absolute, now);
            }
            interrupts.set(causes, now);
        });
    }

    /// The receiver did a batch. Where it starved but the driver has put descriptors into the ring
    /// meanwhile, it is told that there is more to do.
    pub fn received(&mut self, mut report: ReceiveReport) -> ReceiveReport {
        let threshold = self.store.get(offset::RCTL) >> rctl::RDMTS_SHIFT & 3;
        let store = &mut self.store;
        store.set(offset::RDH, report.head);
        let available = Ring::receive(store).map(|ring| ring.available());
        if report.starved && available != Some(report.left) {
            report.starved = false;
            report.more = true;
        }
        self.receiver_starved = report.starved;
        store.count(0x4074, report.frames);
        store.count(0x4078, report.broadcasts);
        store.count(0x407c, report.multicasts);
        store.count_octets(0x4088, report.octets);
        store.count(0x40ac, report.oversized);
        store.count(0x4010, report.missed);
        self.count_received_total(&report);
        let low = Ring::receive(&self.store).is_some_and(|ring| {
            // RDMTS: one half, quarter or eighth of the ring (13.4.22).
            ring.available() <= ring.count() >> (threshold + 1)
        });
        self.frames_untold |= report.frames > 0;
        // While there are more frames and descriptors, the driver would only take the processor from
        // who moves them. One that polls needs no telling; one that does not soon runs low.
        if self.frames_untold && (!report.more || low) {
            self.frames_untold = false;
            self.interrupt_for_received(low);
        }
        report
    }

    fn interrupt_for_received(&mut self, low: bool) {
        let store = &self.store;
        let (packet, absolute) = (store.get(offset::RDTR), store.get(offset::RADV));
        self.now(|interrupts, now| {
            if low {
                interrupts.set(cause::RXDMT0, now);
            }
            interrupts.received(packet, absolute, now);
        });
    }

    /// Frames that arrived, whether stored, filtered or thrown away.
    pub fn count_received_total(&mut self, report: &ReceiveReport) {
        self.store.count(0x40d0, report.total_frames);
        self.store.count_octets(0x40c0, report.total_octets);
    }
}
