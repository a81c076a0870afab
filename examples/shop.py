"""A small shop on the embedded broker: no server, two terminals.

qworker -A shop -c 2 -Q hipri,celery      # in this folder
python shop.py                            # in another terminal, same folder
"""

from __future__ import annotations

import sys

from qworker import App, get_task_logger

app = App("shop", broker="sqlite:///shop.db", backend="sqlite:///shop.db")
log = get_task_logger(__name__)


class BankIsBusy(Exception):
    pass


@app.task(bind=True, queue="hipri", max_retries=3)
def charge(self, order_id: int, cents: int) -> str:  # type: ignore[no-untyped-def]
    """The bank answers at the second try."""
    try:
        return ask_bank(order_id, cents, self.request.retries)
    except BankIsBusy as busy:
        log.warning("order %d: the bank is busy", order_id)
        raise self.retry(exc=busy, countdown=0.1) from busy


def ask_bank(order_id: int, cents: int, attempt: int) -> str:
    if attempt == 0:
        raise BankIsBusy
    return f"order {order_id}: {cents / 100:.2f} charged at attempt {attempt + 1}"


@app.task
def receipt(lines: list[tuple[str, int]]) -> dict[str, int]:
    """What JSON can hold comes back: a tuple arrives as a list."""
    return {"lines": len(lines), "cents": sum(cents for _, cents in lines)}


@app.task
def ship(address: str) -> str:
    if not address:
        raise ValueError("an address is needed")
    return f"shipped to {address}"


def main() -> int:
    charged = charge.delay(7, 1250)
    printed = receipt.apply_async(([("tea", 450), ("cup", 800)],), countdown=0.2)
    shipped = ship.delay("Zoë, Übersee")
    nowhere = ship.delay("")
    print(charged.get(timeout=20))
    print(printed.get(timeout=20))
    print(shipped.get(timeout=20))
    try:
        nowhere.get(timeout=20)
    except ValueError as error:
        print(f"not shipped: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
