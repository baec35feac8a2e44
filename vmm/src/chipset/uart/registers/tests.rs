use super::offset::*;
use super::*;

/// Interrupts are let through, and the other end may send.
const OPEN: u8 = modem_control::OUT2 | modem_control::RTS;

/// FIFOs on with trigger level 8, interrupts `enabled`, and let through.
fn with_fifos(enabled: u8) -> Registers {
    let mut uart = Registers::default();
    uart.write(MODEM_CONTROL, OPEN);
    uart.write(FIFO_CONTROL, 0x81);
    uart.write(INTERRUPT_ENABLE, enabled);
    uart
}

#[test]
fn drivers_know_it_as_a_16550a() {
    let mut uart = Registers::default();
    // As Linux's autoconfig does: no other part's registers answer, the FIFO bits do.
    uart.write(INTERRUPT_ENABLE, 0xff);
    assert_eq!(uart.read(INTERRUPT_ENABLE), 0x0f);
    uart.write(INTERRUPT_ENABLE, 0);
    uart.write(SCRATCH, 0xa5);
    assert_eq!(uart.read(SCRATCH), 0xa5);
    uart.write(MODEM_CONTROL, 0x1a);
    assert_eq!(uart.read(MODEM_STATUS) & 0xf0, 0x90);
    uart.write(MODEM_CONTROL, 0);
    assert_eq!(uart.read(INTERRUPT_ID), 0x01);
    uart.write(FIFO_CONTROL, 0x01);
    assert_eq!(uart.read(INTERRUPT_ID), 0xc1);
    // Bit 5 would make it a 16750.
    uart.write(LINE_CONTROL, 0x80);
    uart.write(FIFO_CONTROL, 0x21);
    assert_eq!(uart.read(INTERRUPT_ID), 0xc1);
    uart.write(FIFO_CONTROL, 0);
    assert_eq!(uart.read(INTERRUPT_ID), 0x01);
}

#[test]
fn the_divisor_latch_hides_data_and_enable() {
    let mut uart = Registers::default();
    uart.write(LINE_CONTROL, 0x83);
    assert_eq!(uart.write(DATA, 1).or(uart.write(INTERRUPT_ENABLE, 2)), None);
    assert_eq!((uart.read(DATA), uart.read(INTERRUPT_ENABLE)), (1, 2));
    uart.write(LINE_CONTROL, 0x03);
    assert_eq!(uart.read(INTERRUPT_ENABLE), 0);
    assert_eq!(uart.write(DATA, b'x'), Some(b'x'));
}

#[test]
fn the_receive_fifo_is_16_deep_and_interrupts_by_its_trigger_or_by_timeout() {
    let mut uart = with_fifos(enable::RECEIVED);
    assert_eq!(uart.receive(&[7; 20]), FIFO);
    assert_eq!((uart.room(), uart.receive(&[7])), (0, 0));
    assert_eq!(uart.read(INTERRUPT_ID), 0xc4);
    for _ in 0..9 {
        assert_eq!((uart.read(LINE_STATUS) & 1, uart.read(DATA)), (1, 7));
    }
    assert_eq!(uart.read(INTERRUPT_ID), 0xcc, "7 left, below the trigger");
    assert!(uart.interrupts());
    uart.write(FIFO_CONTROL, 0x83);
    assert!(uart.is_drained() && !uart.interrupts());
    assert_eq!((uart.read(LINE_STATUS), uart.read(DATA)), (0x60, 0));

    for (control, trigger) in [(0x01, 1), (0x41, 4), (0x81, 8), (0xc1, 14)] {
        let mut uart = with_fifos(enable::RECEIVED);
        uart.write(FIFO_CONTROL, control);
        uart.receive(&vec![0; trigger - 1]);
        assert_ne!(uart.read(INTERRUPT_ID), 0xc4, "{trigger}");
        uart.receive(&[0]);
        assert_eq!(uart.read(INTERRUPT_ID), 0xc4, "{trigger}");
    }
}

#[test]
fn without_fifos_one_byte_fits() {
    let mut uart = Registers::default();
    assert_eq!(uart.receive(b"a"), 0, "nobody listens");
    uart.write(MODEM_CONTROL, OPEN);
    uart.write(INTERRUPT_ENABLE, enable::RECEIVED);
    assert_eq!(uart.receive(b"ab"), 1);
    assert_eq!(uart.read(INTERRUPT_ID), 0x04);
    uart.write(FIFO_CONTROL, 0x01);
    assert!(uart.is_drained(), "a change of mode clears");
}

/// As SeaBIOS's console and GRUB behind it, iPXE and syslinux do.
#[test]
fn a_driver_that_polls_is_listening_without_rts() {
    let mut uart = Registers::default();
    uart.write(FIFO_CONTROL, 0x01);
    for _ in 0..1000 {
        uart.read(LINE_STATUS);
        uart.write(DATA, b'x');
        uart.read(LINE_STATUS);
    }
    assert_eq!(uart.receive(b"a"), 0, "it only waits for its own bytes to leave");
    for _ in 0..POLLS {
        uart.read(LINE_STATUS);
    }
    uart.write(DATA, b'x');
    assert_eq!(uart.receive(&[7; 20]), FIFO, "it still listens after an echo");
    assert_eq!((uart.read(LINE_STATUS) & 1, uart.read(DATA)), (1, 7));

    // The next driver, which is a kernel's, begins with the modem lines.
    uart.write(MODEM_CONTROL, modem_control::DTR);
    assert_eq!(uart.room(), 0);
    uart.write(MODEM_CONTROL, modem_control::DTR | OPEN);
    assert_eq!(uart.room(), 1);
}

#[test]
fn a_driver_that_takes_the_interrupt_is_listening_without_rts() {
    let mut uart = Registers::default();
    uart.write(INTERRUPT_ENABLE, enable::ALL);
    assert_eq!(uart.room(), 0, "Linux probes like this");
    uart.write(MODEM_CONTROL, modem_control::OUT2);
    assert_eq!(uart.receive(b"ab"), 1);
}

#[test]
fn the_transmitter_interrupts_when_it_is_enabled_and_after_each_byte() {
    let mut uart = with_fifos(0);
    assert_eq!(uart.write(DATA, 1), Some(1));
    assert!(!uart.interrupts());
    uart.write(INTERRUPT_ENABLE, enable::TRANSMITTER_EMPTY);
    assert!(uart.interrupts());
    assert_eq!(uart.read(INTERRUPT_ID), 0xc2);
    assert_eq!(uart.read(INTERRUPT_ID), 0xc1, "reading it took it");
    uart.write(DATA, 2);
    assert!(uart.interrupts());
    // A more urgent one hides it, and reading that does not take it.
    uart.write(INTERRUPT_ENABLE, enable::TRANSMITTER_EMPTY | enable::RECEIVED);
    uart.receive(&[3]);
    assert_eq!(uart.read(INTERRUPT_ID), 0xcc);
    uart.read(DATA);
    assert_eq!(uart.read(INTERRUPT_ID), 0xc2);
    uart.write(INTERRUPT_ENABLE, 0);
    uart.write(INTERRUPT_ENABLE, enable::TRANSMITTER_EMPTY);
    assert_eq!(uart.read(INTERRUPT_ID), 0xc2, "enabled again while empty");
}

#[test]
fn a_loop_brings_back_bytes_and_modem_lines_and_overruns() {
    let mut uart = with_fifos(enable::ALL);
    uart.read(INTERRUPT_ID);
    uart.write(MODEM_CONTROL, modem_control::LOOP | modem_control::OUT2);
    assert!(!uart.interrupts(), "OUT2's pin is off in a loop");
    assert_eq!((uart.room(), uart.receive(b"x")), (0, 0));
    for byte in 0..FIFO as u8 + 2 {
        assert_eq!(uart.write(DATA, byte), None);
    }
    assert_eq!(uart.read(INTERRUPT_ID), 0xc6, "line status comes first");
    assert_eq!(uart.read(LINE_STATUS), 0x63);
    assert_eq!(uart.read(LINE_STATUS), 0x61, "reading it took the overrun");
    for byte in 0..FIFO as u8 {
        assert_eq!(uart.read(DATA), byte);
    }
    assert_eq!(uart.read(INTERRUPT_ID), 0xc2);
    assert_eq!(uart.read(INTERRUPT_ID), 0xc0, "CTS and DSR went away");
    assert_eq!(uart.read(MODEM_STATUS), 0x80 | 0x03);
    assert_eq!(uart.read(INTERRUPT_ID), 0xc1);
    uart.write(MODEM_CONTROL, modem_control::LOOP | modem_control::OUT1);
    uart.read(MODEM_STATUS);
    uart.write(MODEM_CONTROL, modem_control::LOOP);
    assert_eq!(uart.read(MODEM_STATUS), 0x04, "the ring indicator ended");

    let mut uart = Registers::default();
    uart.write(MODEM_CONTROL, modem_control::LOOP);
    uart.write(DATA, 1);
    uart.write(DATA, 2);
    assert_eq!((uart.read(LINE_STATUS) & 2, uart.read(DATA)), (2, 2));
}

#[test]
fn interrupts_need_out2() {
    let mut uart = with_fifos(enable::RECEIVED);
    uart.receive(&[1]);
    assert!(uart.interrupts());
    uart.write(MODEM_CONTROL, 0);
    assert!(!uart.interrupts());
    uart.write(MODEM_CONTROL, OPEN);
    assert!(uart.interrupts());
}

#[test]
fn no_sequence_of_accesses_does_harm() {
    let mut uart = Registers::default();
    let mut state: u32 = 1;
    for _ in 0..200_000 {
        // Numerical Recipes' generator: any sequence that visits everything will do.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (at, value) = (u64::from(state >> 8 & 7), (state >> 16) as u8);
        match state >> 24 & 3 {
            0 => drop(uart.read(at)),
            1 => drop(uart.receive(&[value; 5])),
            _ => drop(uart.write(at, value)),
        }
        assert!(uart.receive.len() <= FIFO);
    }
}
