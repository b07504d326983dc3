// "… is replying", and the number of guests: both from what presence already knows.
"use strict";

const IDLE = 4000;

function showReplying(line) {
  const channel = FlaskPresence.connect().channel(line.dataset.channel);
  const names = new Intl.ListFormat("en");

  channel.on("change", () => {
    const others = channel.users
      .filter((user) => user.meta.replying && user.id !== line.dataset.me)
      .map((user) => user.info.name);
    const who = others.length > 3 ? "Several people" : names.format(others);
    line.textContent = who && `${who} ${others.length > 1 ? "are" : "is"} replying…`;
  });
  channel.subscribe().catch(console.warn);

  const box = document.querySelector(".reply textarea");
  if (box) tellReplying(channel, box);
}

function tellReplying(channel, box) {
  let replying = false;
  let timer;

  function tell(now) {
    clearTimeout(timer);
    if (now) timer = setTimeout(tell, IDLE, false);
    if (now === replying) return;
    replying = now;
    channel.enter({ replying }).catch(console.warn);
  }

  box.addEventListener("input", () => tell(box.value.trim() !== ""));
  box.form.addEventListener("submit", () => tell(false));
}

function showGuests(number) {
  const channel = FlaskPresence.connect().channel(number.dataset.guests);
  channel.on("change", () => (number.textContent = channel.anonymous));
  channel.subscribe().catch(console.warn);
}

document.querySelectorAll(".replying").forEach(showReplying);
document.querySelectorAll("[data-guests]").forEach(showGuests);
