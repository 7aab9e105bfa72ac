// Runs on the sound thread: gathers 20 ms of the microphone and hands them over.

const PIECE = 960;

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Float32Array(PIECE);
    this.filled = 0;
  }

  process([channels]) {
    const samples = channels[0];
    if (!samples) return true;
    for (let i = 0; i < samples.length; i++) {
      this.piece[this.filled++] = samples[i];
      if (this.filled === PIECE) {
        this.port.postMessage(this.piece);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("liveface-microphone", Microphone);
