// The browser's side of lib.display.widgets.ClickCanvas: clicks and drags become pixel indices.
// A click adds a point, dragging draws the box. Python answers by changing `overlay`.

const BOX = "#56B4E9";
const POSITIVE = "#56B4E9";
const NEGATIVE = "#D55E00";
const DRAG = 4; // screen pixels: a shorter movement is a click

function render({ model, el }) {
  const width = model.get("width");
  const height = model.get("height");
  const zoom = model.get("zoom");

  const canvas = document.createElement("canvas");
  canvas.width = width * zoom;
  canvas.height = height * zoom;
  canvas.style.cursor = "crosshair";
  canvas.style.touchAction = "none";
  canvas.setAttribute("aria-label", "image: click to add a point, drag to draw a box");
  const context = canvas.getContext("2d");

  const controls = document.createElement("div");
  const kind = document.createElement("button");
  let positive = true;
  const showKind = () => {
    kind.textContent = positive ? "adding: object (+)" : "adding: background (−)";
  };
  kind.onclick = () => { positive = !positive; showKind(); };
  showKind();
  const undo = document.createElement("button");
  undo.textContent = "undo point";
  undo.onclick = () => send({ points: model.get("points").slice(0, -1) });
  const clear = document.createElement("button");
  clear.textContent = "clear";
  clear.onclick = () => send({ points: [], box: [] });
  const status = document.createElement("span");
  status.style.marginLeft = "1em";
  controls.append(kind, undo, clear, status);
  el.append(controls, canvas);

  function send(changes) {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  }

  // Pixel index under the pointer; the canvas may be shown smaller than it is.
  function pixel(event) {
    const frame = canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - frame.left) / frame.width) * width);
    const y = Math.floor(((event.clientY - frame.top) / frame.height) * height);
    return [Math.min(Math.max(x, 0), width - 1), Math.min(Math.max(y, 0), height - 1)];
  }

  function boxBetween([x0, y0], [x1, y1]) {
    return [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
  }

  let start = null; // {pixel, x, y} while the button is down
  let moving = null; // the box under way
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    start = { pixel: pixel(event), x: event.clientX, y: event.clientY };
  };
  canvas.onpointermove = (event) => {
    if (!start) return;
    const far = Math.hypot(event.clientX - start.x, event.clientY - start.y) > DRAG;
    if (far || moving) moving = boxBetween(start.pixel, pixel(event));
    draw();
  };
  canvas.onpointerup = (event) => {
    if (!start) return;
    if (moving) {
      send({ box: moving });
    } else {
      // Shift turns the kind round for one click.
      const label = positive !== event.shiftKey ? 1 : 0;
      send({ points: [...model.get("points"), [...start.pixel, label]] });
    }
    start = moving = null;
    draw();
  };
  canvas.onpointercancel = () => { start = moving = null; draw(); };

  const pictures = { image: new Image(), overlay: new Image() };
  for (const [name, picture] of Object.entries(pictures)) {
    picture.onload = draw;
    const load = () => { picture.src = model.get(name); draw(); };
    model.on(`change:${name}`, load);
    load();
  }
  for (const name of ["points", "box", "status"]) model.on(`change:${name}`, draw);

  function draw() {
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (const picture of Object.values(pictures)) {
      if (picture.complete && picture.naturalWidth) {
        context.drawImage(picture, 0, 0, canvas.width, canvas.height);
      }
    }
    const box = moving ?? model.get("box");
    if (box.length) {
      const [x0, y0, x1, y1] = box; // inclusive: the frame runs around the last pixel
      context.strokeStyle = BOX;
      context.lineWidth = 2;
      context.strokeRect(x0 * zoom, y0 * zoom, (x1 - x0 + 1) * zoom, (y1 - y0 + 1) * zoom);
    }
    for (const [x, y, label] of model.get("points")) {
      context.beginPath();
      context.arc((x + 0.5) * zoom, (y + 0.5) * zoom, 6, 0, 2 * Math.PI);
      context.fillStyle = label ? POSITIVE : NEGATIVE;
      context.strokeStyle = "white";
      context.lineWidth = 1.5;
      context.fill();
      context.stroke();
      context.fillStyle = "white";
      context.font = "bold 10px sans-serif";
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillText(label ? "+" : "−", (x + 0.5) * zoom, (y + 0.5) * zoom);
    }
    status.textContent = model.get("status");
  }
  draw();
}

export default { render };
