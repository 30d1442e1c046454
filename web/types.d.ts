// What the page's code uses of ComfyUI's frontend, for the checker (scripts/check). No browser
// reads this file. The full types are in the npm package @comfyorg/comfyui-frontend-types.

declare module "*/scripts/app.js" {
  export interface NodeWidget {
    name: string;
    value?: unknown;
    element?: HTMLElement;
    serialize?: boolean;
    serializeValue?: () => unknown;
  }

  export interface DOMWidgetOptions {
    serialize?: boolean;
    getMinHeight?: () => number;
    getMaxHeight?: () => number;
  }

  export interface GraphNode {
    id: number | string;
    comfyClass?: string;
    onExecuted?: (output: Record<string, any> | null) => void;
    widgets?: NodeWidget[];
    addDOMWidget(
      name: string,
      type: string,
      element: HTMLElement,
      options?: DOMWidgetOptions,
    ): NodeWidget;
    size: [number, number];
    computeSize(): [number, number];
    setSize(size: [number, number]): void;
    setDirtyCanvas?(foreground: boolean, background?: boolean): void;
    subgraph?: Graph;
  }

  export interface Graph {
    nodes: GraphNode[];
    getNodeById(id: number | string): GraphNode | null;
  }

  export interface ToastMessage {
    severity: "success" | "info" | "warn" | "error";
    summary: string;
    detail?: string;
    life?: number;
  }

  export interface Extension {
    name: string;
    setup?(): void | Promise<void>;
    nodeCreated?(node: GraphNode): void;
    refreshComboInNodes?(): void | Promise<void>;
  }

  export const app: {
    graph: Graph;
    rootGraph?: Graph;
    extensionManager: { toast: { add(message: ToastMessage): void } };
    registerExtension(extension: Extension): void;
  };
}

declare module "*/scripts/api.js" {
  export const api: {
    fetchApi(route: string, options?: RequestInit): Promise<Response>;
    addEventListener(name: string, listener: (event: CustomEvent) => void): void;
  };
}

interface Window {
  /** The page's own modules, for extensions. */
  comfyAPI?: {
    utils?: {
      applyTextReplacements?: (
        app: typeof import("*/scripts/app.js").app,
        value: string,
      ) => string;
    };
  };
}
