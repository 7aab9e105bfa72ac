// A head made of formulas: no file, no download, all 52 ARKit shapes. A mannequin to test a voice with, not a person.
// Metres; +Y up, +Z forward; the origin is the middle of the skull, where the neck's joint is taken to be.

const MOUTH = { y: -0.058, half: 0.026 };
const EYE = { x: 0.0315, y: 0.018, z: 0.066, r: 0.0145 };
const JAW = { y: -0.005, z: 0.0, angle: 0.3 };

const bell = (x, width) => Math.exp(-((x / width) ** 2));
const step = (from, to, x) => {
  const t = Math.min(1, Math.max(0, (x - from) / (to - from)));
  return t * t * (3 - 2 * t);
};

/** The face's surface at angle `phi` (0 is straight ahead, + is the person's left) and height `y`. */
function skin(phi, y) {
  const up = Math.max(-1, Math.min(1, (y - 0.012) / 0.122));
  const round = Math.sqrt(Math.max(0, 1 - up * up));
  const chin = step(0, -0.11, y);
  const width = 0.077 * round ** 0.6 * (1 - 0.27 * chin);
  const front = 0.09 * round ** 0.55 * (1 - 0.08 * chin);
  const back = 0.1 * round ** 0.8 * (1 - 0.45 * chin);
  const x = width * Math.sin(phi);
  const ahead = Math.cos(phi);
  let z = ahead > 0 ? front * ahead ** 0.85 : back * ahead;
  if (ahead > 0) {
    const nose = step(0.034, -0.02, y) * step(-0.038, -0.024, y);
    z += 0.026 * nose * bell(x, 0.008 + 0.006 * step(0.01, -0.022, y));
    z += 0.007 * bell(x, 0.017) * bell(y + 0.026, 0.007); // the wings of the nose
    z -= 0.012 * (bell(x - EYE.x, 0.019) + bell(x + EYE.x, 0.019)) * bell(y - EYE.y, 0.014);
    z += 0.004 * bell(y - 0.043, 0.012) * bell(x, 0.055); // brows
    z += 0.005 * (bell(x - 0.04, 0.02) + bell(x + 0.04, 0.02)) * bell(y + 0.016, 0.018); // cheekbones
    z += 0.007 * bell(x, 0.022) * bell(y + 0.1, 0.016); // chin
    z += 0.004 * bell(x, 0.03) * bell(y - MOUTH.y, 0.02);
    const lips = bell(y - MOUTH.y - 0.006, 0.0045) + 1.15 * bell(y - MOUTH.y + 0.007, 0.0055);
    z += 0.0045 * lips * step(MOUTH.half, MOUTH.half * 0.45, Math.abs(x));
  }
  return [x, y, z];
}

/**
 * How each shape moves a point of the face: (x, y, z, lower) → [dx, dy, dz]. `lower` is true below the slit of the
 * mouth, where two rows of points lie on each other and come apart.
 */
function shapes() {
  const side = (s, x) => step(-0.006, 0.006, s * x);
  const inMouth = (x) => step(MOUTH.half * 1.02, MOUTH.half * 0.6, Math.abs(x));
  const lip = (x, y, reach = 0.011) => bell(y - MOUTH.y, reach) * step(MOUTH.half * 1.7, MOUTH.half * 0.9, Math.abs(x));
  // Only inside the mouth may the two rows of the slit part.
  const upperLip = (x, y, lower) => (lower ? 0 : lip(x, y) * inMouth(x));
  const lowerLip = (x, y, lower) => (lower ? lip(x, y) * inMouth(x) : 0);
  const corner = (s, x, y) => bell(x - s * MOUTH.half, 0.014) * bell(y - MOUTH.y, 0.014);
  const front = (z) => step(0.0, 0.04, z);

  // The share of a point that the jaw carries: all of the chin, half at the corners, none of the upper lip.
  const jaw = (x, y, z, lower) => {
    const below = step(MOUTH.y + 0.035, MOUTH.y - 0.022, y) * step(-0.05, 0.02, z);
    const near = bell(y - MOUTH.y, 0.03) * inMouth(x);
    return lower ? below + (1 - below) * near : below * (1 - near);
  };
  const opened = (x, y, z, share) => {
    const a = JAW.angle * share;
    const [dy, dz] = [y - JAW.y, z - JAW.z];
    return [0, dy * Math.cos(a) - dz * Math.sin(a) - dy, dy * Math.sin(a) + dz * Math.cos(a) - dz];
  };

  const table = {
    jawOpen: (x, y, z, lower) => opened(x, y, z, jaw(x, y, z, lower)),
    jawForward: (x, y, z, lower) => [0, 0, 0.009 * jaw(x, y, z, lower)],
    jawLeft: (x, y, z, lower) => [0.009 * jaw(x, y, z, lower), 0, 0],
    jawRight: (x, y, z, lower) => [-0.009 * jaw(x, y, z, lower), 0, 0],
    mouthClose: (x, y, z, lower) => {
      // What jawOpen took apart comes together again: the lower lip all the way, the chin stays.
      const [, dy, dz] = opened(x, y, z, jaw(x, y, z, lower));
      const share = lower ? 0.75 * lip(x, y, 0.013) * inMouth(x) : 0;
      return [0, -dy * share + (lower ? 0 : -0.006 * lip(x, y) * inMouth(x)), -dz * share];
    },
    mouthFunnel: (x, y, z, lower) => [-0.35 * x * lip(x, y, 0.018), (lower ? -0.005 : 0.005) * lip(x, y) * inMouth(x), 0.011 * lip(x, y, 0.016)],
    mouthPucker: (x, y, z) => [-0.42 * x * lip(x, y, 0.02), 0, 0.012 * lip(x, y, 0.016)],
    mouthLeft: (x, y) => [0.009 * lip(x, y, 0.022), 0, 0],
    mouthRight: (x, y) => [-0.009 * lip(x, y, 0.022), 0, 0],
    mouthRollLower: (x, y, z, lower) => [0, 0.004 * lowerLip(x, y, lower), -0.006 * lowerLip(x, y, lower)],
    mouthRollUpper: (x, y, z, lower) => [0, -0.004 * upperLip(x, y, lower), -0.006 * upperLip(x, y, lower)],
    mouthShrugLower: (x, y, z, lower) => [0, 0.005 * lowerLip(x, y, lower) + 0.003 * bell(x, 0.02) * bell(y + 0.1, 0.015), 0.003 * lowerLip(x, y, lower)],
    mouthShrugUpper: (x, y, z, lower) => [0, 0.004 * upperLip(x, y, lower), 0.003 * upperLip(x, y, lower)],
    browInnerUp: (x, y, z) => [0, 0.01 * bell(x, 0.02) * bell(y - 0.045, 0.016) * front(z), 0],
    cheekPuff: (x, y, z) => {
      const puff = (bell(x - 0.042, 0.02) + bell(x + 0.042, 0.02)) * bell(y + 0.052, 0.024) * front(z);
      return [0.008 * puff * Math.sign(x), 0, 0.007 * puff];
    },
  };
  for (const [name, s] of [["Left", 1], ["Right", -1]]) {
    Object.assign(table, {
      [`mouthSmile${name}`]: (x, y) => [0.009 * s * corner(s, x, y), 0.011 * corner(s, x, y), -0.004 * corner(s, x, y)],
      [`mouthFrown${name}`]: (x, y) => [0.002 * s * corner(s, x, y), -0.011 * corner(s, x, y), 0],
      [`mouthDimple${name}`]: (x, y) => [0.004 * s * corner(s, x, y), 0, -0.007 * corner(s, x, y)],
      [`mouthStretch${name}`]: (x, y) => [0.011 * s * corner(s, x, y), -0.004 * corner(s, x, y), -0.003 * corner(s, x, y)],
      [`mouthPress${name}`]: (x, y, z, lower) => [0, (lower ? 0.002 : -0.002) * lip(x, y) * inMouth(x) * side(s, x), -0.003 * lip(x, y) * side(s, x)],
      [`mouthLowerDown${name}`]: (x, y, z, lower) => [0, -0.009 * lowerLip(x, y, lower) * side(s, x), 0.001 * lowerLip(x, y, lower)],
      [`mouthUpperUp${name}`]: (x, y, z, lower) => [0, 0.008 * upperLip(x, y, lower) * side(s, x), 0.001 * upperLip(x, y, lower)],
      [`browDown${name}`]: (x, y, z) => [-0.003 * s * brow(s, x, y) * front(z), -0.008 * brow(s, x, y) * front(z), 0],
      [`browOuterUp${name}`]: (x, y, z) => [0, 0.01 * bell(x - s * 0.045, 0.02) * bell(y - 0.045, 0.016) * front(z), 0],
      [`cheekSquint${name}`]: (x, y, z) => [0, 0.007 * cheek(s, x, y) * front(z), 0.003 * cheek(s, x, y) * front(z)],
      [`noseSneer${name}`]: (x, y, z) => [0, 0.006 * bell(x - s * 0.013, 0.011) * bell(y + 0.022, 0.016) * front(z), 0],
      [`eyeSquint${name}`]: (x, y, z) => [0, 0.005 * bell(x - s * EYE.x, 0.02) * bell(y - EYE.y + 0.014, 0.01) * front(z), 0.002 * bell(x - s * EYE.x, 0.02) * bell(y - EYE.y + 0.014, 0.01) * front(z)],
    });
  }
  return table;
}
const brow = (s, x, y) => bell(x - s * 0.028, 0.022) * bell(y - 0.045, 0.014);
const cheek = (s, x, y) => bell(x - s * 0.038, 0.018) * bell(y + 0.006, 0.014);

/** [count × 3] displacements for every shape that moves anything here; the rest are left out. */
function displace(points, lower, table) {
  const moved = {};
  for (const [name, shape] of Object.entries(table)) {
    const out = new Float32Array(points.length);
    let most = 0;
    for (let i = 0; i < points.length; i += 3) {
      const d = shape(points[i], points[i + 1], points[i + 2], lower(i / 3));
      for (let k = 0; k < 3; k++) {
        out[i + k] = d[k];
        most = Math.max(most, Math.abs(d[k]));
      }
    }
    if (most > 1e-6) moved[name] = out;
  }
  return moved;
}

function morphed(THREE, geometry, moved, material, name) {
  geometry.morphTargetsRelative = true;
  const names = Object.keys(moved);
  geometry.morphAttributes.position = names.map((shape) => {
    const attribute = new THREE.Float32BufferAttribute(moved[shape], 3);
    attribute.name = shape;
    return attribute;
  });
  const mesh = new THREE.Mesh(geometry, material);
  mesh.name = name;
  mesh.frustumCulled = false;
  mesh.morphTargetDictionary = Object.fromEntries(names.map((shape, i) => [shape, i]));
  mesh.morphTargetInfluences = names.map(() => 0);
  return mesh;
}

function face(THREE, table) {
  const columns = 120;
  const rows = [];
  for (let i = 0; i <= 96; i++) {
    // Rows crowd at the mouth, and one of them runs exactly along its slit.
    const t = i / 96;
    const slit = 40 / 96;
    const u = t < slit ? (t - slit) / slit : (t - slit) / (1 - slit);
    const reach = t < slit ? MOUTH.y + 0.109 : 0.133 - MOUTH.y;
    rows.push({ y: MOUTH.y + reach * (0.3 * u + 0.7 * u ** 3) * 1, lower: i < 40 });
    if (i === 40) rows.splice(rows.length - 1, 0, { y: MOUTH.y, lower: true });
  }
  const points = [];
  const colors = [];
  const flesh = new THREE.Color(0xd9a98b);
  const red = new THREE.Color(0xb4675c);
  const dark = new THREE.Color(0x4a3328);
  const color = new THREE.Color();
  for (const { y } of rows) {
    for (let c = 0; c <= columns; c++) {
      const s = (2 * c) / columns - 1;
      const [x, , z] = skin(Math.PI * s * (0.3 + 0.7 * s * s), y);
      points.push(x, y, z);
      const edge = 1 - (Math.abs(x) / (MOUTH.half * 1.03)) ** 2;
      const above = y - MOUTH.y;
      const thick = edge > 0 ? Math.sqrt(edge) * (above > 0 ? 0.0095 - 0.003 * bell(x, 0.004) : 0.0115) : 0;
      const lipness = edge > 0 && z > 0 ? step(thick, thick * 0.75, Math.abs(above)) : 0;
      const hair = Math.max(step(0.07, 0.085, y + 0.35 * Math.max(0, -z)), z < -0.01 && y > -0.045 ? step(-0.005, -0.03, z) : 0);
      const browness = z > 0 ? bell(Math.abs(x) - 0.033, 0.014) * bell(y - 0.044 - 0.1 * (Math.abs(x) - 0.033) * (Math.abs(x) < 0.033 ? 1 : -1), 0.0042) : 0;
      color.copy(flesh).lerp(red, lipness).lerp(dark, Math.min(1, Math.max(hair, 1.3 * browness)));
      colors.push(color.r, color.g, color.b);
    }
  }
  const index = [];
  const wide = columns + 1;
  for (let r = 0; r + 1 < rows.length; r++) {
    if (rows[r].y === rows[r + 1].y) continue; // the slit
    for (let c = 0; c < columns; c++) {
      const a = r * wide + c;
      index.push(a, a + 1, a + wide, a + 1, a + wide + 1, a + wide);
    }
  }
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.Float32BufferAttribute(points, 3));
  geometry.setAttribute("color", new THREE.Float32BufferAttribute(colors, 3));
  geometry.setIndex(index);
  geometry.computeVertexNormals();
  const material = new THREE.MeshStandardMaterial({ vertexColors: true, roughness: 0.62, side: THREE.DoubleSide });
  return morphed(THREE, geometry, displace(points, (i) => rows[Math.floor(i / wide)].lower, table), material, "face");
}

/** A piece that rides on the jaw, or stays with the skull. */
function inner(THREE, geometry, color, name, moved = {}) {
  const material = new THREE.MeshStandardMaterial({ color, roughness: 0.5, side: THREE.DoubleSide });
  return morphed(THREE, geometry, moved, material, name);
}

function onJaw(geometry) {
  const points = geometry.attributes.position.array;
  const rigid = {
    jawOpen: (x, y, z) => {
      const [dy, dz] = [y - JAW.y, z - JAW.z];
      const [c, s] = [Math.cos(JAW.angle), Math.sin(JAW.angle)];
      return [0, dy * c - dz * s - dy, dy * s + dz * c - dz];
    },
    jawForward: () => [0, 0, 0.009],
    jawLeft: () => [0.009, 0, 0],
    jawRight: () => [-0.009, 0, 0],
  };
  return displace(points, () => true, rigid);
}

function mouth(THREE) {
  const parts = [];
  const cavity = new THREE.SphereGeometry(0.027, 24, 16).scale(0.95, 0.75, 0.75).translate(0, MOUTH.y, 0.042);
  const sag = displace(cavity.attributes.position.array, () => true, {
    jawOpen: (x, y) => [0, -0.016 * step(MOUTH.y + 0.006, MOUTH.y - 0.012, y), -0.008],
  });
  parts.push(inner(THREE, cavity, 0x3a1512, "cavity", sag));
  const teeth = (y) => new THREE.TorusGeometry(0.019, 0.0042, 10, 32, Math.PI).rotateX(Math.PI / 2).scale(1.05, 1, 1.2).translate(0, y, 0.044);
  parts.push(inner(THREE, teeth(MOUTH.y + 0.0035), 0xf1ece0, "upper teeth"));
  const below = teeth(MOUTH.y - 0.0065);
  parts.push(inner(THREE, below, 0xe9e3d6, "lower teeth", onJaw(below)));
  const tongue = new THREE.SphereGeometry(0.014, 20, 14).scale(1.0, 0.42, 1.2).translate(0, MOUTH.y - 0.011, 0.047);
  const out = displace(tongue.attributes.position.array, () => true, {
    tongueOut: (x, y, z) => [0, 0.004 - 0.25 * Math.max(0, z - 0.047), 0.04 * step(0.035, 0.065, z)],
  });
  parts.push(inner(THREE, tongue, 0xb9605c, "tongue", { ...onJaw(tongue), ...out }));
  return parts;
}

const turned = (geometry, centre, axis, angle, share = () => 1) => {
  const points = geometry.attributes.position.array;
  const out = new Float32Array(points.length);
  for (let i = 0; i < points.length; i += 3) {
    const [x, y, z] = [points[i] - centre[0], points[i + 1] - centre[1], points[i + 2] - centre[2]];
    const a = angle * share(x, y, z);
    const [c, s] = [Math.cos(a), Math.sin(a)];
    if (axis === "x") out.set([0, y * c - z * s - y, y * s + z * c - z], i);
    else out.set([x * c + z * s - x, 0, -x * s + z * c - z], i);
  }
  return out;
};

function eye(THREE, name, s) {
  const centre = [s * EYE.x, EYE.y, EYE.z];
  const parts = [];
  const ball = new THREE.SphereGeometry(EYE.r, 40, 30).rotateX(Math.PI / 2).translate(...centre);
  const [up, aside] = [0.45, 0.55];
  const inward = -s;
  const looks = {
    [`eyeLookUp${name}`]: turned(ball, centre, "x", -up),
    [`eyeLookDown${name}`]: turned(ball, centre, "x", up),
    [`eyeLookIn${name}`]: turned(ball, centre, "y", aside * inward),
    [`eyeLookOut${name}`]: turned(ball, centre, "y", -aside * inward),
  };
  const points = ball.attributes.position.array;
  const colors = [];
  for (let i = 0; i < points.length; i += 3) {
    const off = Math.hypot(points[i] - centre[0], points[i + 1] - centre[1]);
    const front = points[i + 2] > centre[2];
    const c = front && off < 0.0026 ? [0.02, 0.02, 0.02] : front && off < 0.0062 ? [0.16, 0.3, 0.36] : [0.93, 0.91, 0.88];
    colors.push(...c);
  }
  ball.setAttribute("color", new THREE.Float32BufferAttribute(colors, 3));
  const white = new THREE.MeshStandardMaterial({ vertexColors: true, roughness: 0.25 });
  parts.push(morphed(THREE, ball, looks, white, `eye ${name}`));

  const lid = (open, closed, wide, squint, which) => {
    // A part of a sphere about the eye, from behind over its top (or bottom) to a rim; to shut it is to turn it.
    const shell = new THREE.SphereGeometry(EYE.r * 1.07, 40, 14, 0, Math.PI * 2, 0, Math.PI / 2).rotateX(open).translate(...centre);
    const moved = {
      [`eyeBlink${name}`]: turned(shell, centre, "x", closed),
      [`eyeWide${name}`]: turned(shell, centre, "x", wide),
      [`eyeSquint${name}`]: turned(shell, centre, "x", squint),
    };
    const material = new THREE.MeshStandardMaterial({ color: 0xcf9d80, roughness: 0.65, side: THREE.DoubleSide });
    parts.push(morphed(THREE, shell, moved, material, `${which} lid ${name}`));
  };
  lid(-0.36, 0.86, -0.2, 0.12, "upper");
  lid(Math.PI + 0.5, -0.2, 0.06, -0.22, "lower");
  return parts;
}

/**
 * A Group to add to a scene. Its child `head` turns; `root` of MorphDriver may be the group itself:
 *   const head = makeHead(THREE); scene.add(head); const driver = new MorphDriver(head, names, { head: head.userData.head });
 */
export function makeHead(THREE) {
  const group = new THREE.Group();
  group.name = "liveface head";
  const head = new THREE.Group();
  head.name = "head";
  const table = shapes();
  head.add(face(THREE, table), ...mouth(THREE), ...eye(THREE, "Left", 1), ...eye(THREE, "Right", -1));
  const flesh = new THREE.MeshStandardMaterial({ color: 0xd0a083, roughness: 0.65 });
  for (const s of [1, -1]) {
    const ear = new THREE.Mesh(new THREE.SphereGeometry(0.02, 20, 16).scale(0.35, 1.35, 0.8), flesh);
    ear.position.set(s * 0.077, 0.004, -0.008);
    ear.rotation.set(0, s * 0.4, -s * 0.1);
    head.add(ear);
  }
  const neck = new THREE.Mesh(new THREE.CylinderGeometry(0.043, 0.052, 0.13, 40), flesh);
  neck.position.set(0, -0.125, -0.026);
  const shoulders = new THREE.Mesh(
    new THREE.SphereGeometry(0.13, 40, 20, 0, Math.PI * 2, 0, Math.PI / 2).scale(1.35, 0.75, 0.75),
    new THREE.MeshStandardMaterial({ color: 0x3c4a63, roughness: 0.9 }),
  );
  shoulders.position.set(0, -0.262, -0.03);
  group.add(head, neck, shoulders);
  group.userData.head = head;
  return group;
}
