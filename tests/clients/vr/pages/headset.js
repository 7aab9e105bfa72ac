// An emulated headset, in place before the page looks for one.

import { XRDevice, metaQuest3 } from "../web/node_modules/iwer/build/iwer.module.js";

const device = new XRDevice(metaQuest3);
device.installRuntime({ forceInstall: true }); // instead of the one that finds no headset
