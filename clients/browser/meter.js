export class Meter { constructor() {} async start() {} stop() {} summary() { return null; } }
